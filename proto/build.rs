//! Compiles the `.proto` files with protox: no protoc to install.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "proto/skytale/v1/frame.proto",
        "proto/skytale/v1/session.proto",
        "proto/skytale/v1/payload.proto",
    ];
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["proto"])?;
    prost_build::Config::new().bytes(["."]).compile_fds(descriptors)?;
    Ok(())
}
