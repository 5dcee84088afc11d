rustc -O -C target-feature=+crt-static -C strip=symbols -o examples/hello-cloud/hello examples/hello-cloud/hello.rs
cargo run --quiet --release --locked -- build examples/hello-cloud/image.toml --output oci:imgdecl-out
