//! Images with Python packages: they run without further ado, and their bytes are the same whoever builds them and wherever
//! the wheels come from.

mod bases;
mod kit;
mod odd;
mod profiles;
mod same;
