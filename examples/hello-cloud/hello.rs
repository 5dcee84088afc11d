//! Greets whoever is named as an argument, or the world that this project lives in.

fn main() {
    let name = std::env::args().nth(1).unwrap_or_else(|| "Cloud Native Central".to_owned());
    println!("Hello, {name}!");
}
