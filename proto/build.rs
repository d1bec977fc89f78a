//! Compiles the wire contracts with protox, so that no `protoc` is needed on the machine.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Asked when it runs: a target folder may be shared by two checkouts.
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?);
    let root = root.as_path();
    for folder in ["granary", "hadoop"] {
        println!("cargo::rerun-if-changed={}", root.join(folder).display());
    }
    let granary = ["common", "namespace", "datanode", "catalogue", "kv", "admin"]
        .map(|name| format!("granary/{name}.proto"));
    let files = protox::compile(granary, [root])?;
    tonic_prost_build::configure().bytes(".").compile_fds(files)?;
    let mut names = Vec::new();
    for entry in std::fs::read_dir(root.join("hadoop"))? {
        names.push(format!("hadoop/{}", entry?.file_name().to_string_lossy()));
    }
    names.sort();
    let hadoop = protox::compile(names, [root])?;
    tonic_prost_build::configure().bytes(".").compile_fds(hadoop)?;
    Ok(())
}
