//! Python packages from the index that this machine's pip asks: what is chosen, against what uv chooses, and what is laid
//! out, against what uv and pip lay out. Needs pip and a network that reaches its index; pip installs uv.

mod export;
mod hosted;
mod layers;
mod local;
mod pinned;
mod projects;
mod replaced;
mod sets;
