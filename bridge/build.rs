//! Compiles the `.proto` files with protox: no protoc to install. The descriptors go into the binary for gRPC reflection.

use prost::Message as _;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "proto/dataplane/v1/data_plane.proto",
        "proto/skytale/slim/v1/stored.proto",
    ];
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let public = protox::compile([files[0]], ["proto"])?;
    std::fs::write(out.join("data_plane.bin"), public.encode_to_vec())?;
    prost_build::Config::new()
        .bytes(["."])
        .btree_map([".dataplane"])
        .compile_fds(descriptors)?;
    Ok(())
}
