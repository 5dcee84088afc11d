//! Requirements files are obeyed to the last line: which index is asked, and with what credentials; and what pip makes of
//! the same files. The indexes are in this process, and log what they are asked.

mod closed;
mod fresh;
mod kit;
mod options;
mod pip;
mod projects;
mod told;
