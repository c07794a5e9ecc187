//! An image of one layer as an archive that containerd, podman and Docker import (OCI image layout 1.0, image specification 1.1).

use std::io::Write as _;

use anyhow::Result;
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::archive::Archive;

/// What an image is made of.
pub(super) struct Image<'a> {
    /// The layer's archive.
    pub(super) layer: Vec<u8>,
    /// The name to import it under.
    pub(super) name: &'a str,
    /// The machine that it runs on.
    pub(super) architecture: &'a str,
    /// What it runs, and with which variables.
    pub(super) config: Value,
}

/// The blobs of a layout, by what they hold.
#[derive(Default)]
struct Blobs {
    archive: Archive,
}

impl Blobs {
    /// Adds one; returns how others refer to it.
    fn add(&mut self, kind: &str, content: &[u8]) -> Result<Value> {
        let digest = digest(content);
        self.archive.file(&path(&digest), content, 0o644)?;
        Ok(json!({ "mediaType": kind, "digest": format!("sha256:{digest}"), "size": content.len() }))
    }
}

/// The archive of an image.
pub(super) fn pack(image: &Image<'_>) -> Result<Vec<u8>> {
    let mut blobs = Blobs::default();
    blobs.archive.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644)?;
    for directory in ["blobs", "blobs/sha256"] {
        blobs.archive.directory(directory);
    }
    let packed = compress(&image.layer)?;
    let layer = blobs.add("application/vnd.oci.image.layer.v1.tar+gzip", &packed)?;
    let config = json!({
        "architecture": image.architecture,
        "os": "linux",
        "config": image.config,
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", digest(&image.layer))] },
        "history": [{ "created_by": "cargo xtask image" }],
    });
    let config = blobs.add("application/vnd.oci.image.config.v1+json", &serde_json::to_vec(&config)?)?;
    let old = json!([{
        "Config": path_of(&config),
        "RepoTags": [image.name],
        "Layers": [path_of(&layer)],
    }]);
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({ "schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer] });
    let mut manifest = blobs.add(kind, &serde_json::to_vec(&manifest)?)?;
    let tag = image.name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
    if let Some(manifest) = manifest.as_object_mut() {
        // containerd takes the whole name from the first, others the tag from the second.
        let names =
            json!({ "io.containerd.image.name": image.name, "org.opencontainers.image.ref.name": tag });
        manifest.insert("annotations".to_owned(), names);
    }
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [manifest],
    });
    blobs.archive.file("index.json", &serde_json::to_vec(&index)?, 0o644)?;
    // What Docker wrote before there were layouts, and still reads first.
    blobs.archive.file("manifest.json", &serde_json::to_vec(&old)?, 0o644)?;
    Ok(blobs.archive.finish())
}

/// Compressed without a time, a name or a system in its header.
fn compress(content: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzBuilder::new().mtime(0).operating_system(255).write(Vec::new(), Compression::best());
    encoder.write_all(content)?;
    Ok(encoder.finish()?)
}

fn digest(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn path(digest: &str) -> String {
    format!("blobs/sha256/{digest}")
}

fn path_of(descriptor: &Value) -> String {
    let digest = descriptor.get("digest").and_then(Value::as_str).unwrap_or_default();
    path(digest.trim_start_matches("sha256:"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn image() -> Image<'static> {
        let mut layer = Archive::default();
        layer.file("program", b"code", 0o755).unwrap();
        Image {
            layer: layer.finish(),
            name: "localhost/x:1",
            architecture: "amd64",
            config: json!({ "Entrypoint": ["/program"] }),
        }
    }

    /// What a file of the archive holds.
    fn extract(archive: &[u8], path: &str) -> Vec<u8> {
        let mut tar = Command::new("tar");
        tar.args(["-xOf", "-", path]);
        harness::command::finish(&mut tar, archive).unwrap().stdout.into_bytes()
    }

    #[test]
    fn it_is_the_same_each_time() {
        assert_eq!(pack(&image()).unwrap(), pack(&image()).unwrap());
    }

    #[test]
    fn everything_is_where_the_index_says() {
        let archive = pack(&image()).unwrap();
        let read = |path: &str| -> Value { serde_json::from_slice(&extract(&archive, path)).unwrap() };
        let index = read("index.json");
        let manifest = &index["manifests"][0];
        assert_eq!(manifest["annotations"]["io.containerd.image.name"], "localhost/x:1");
        assert_eq!(manifest["annotations"]["org.opencontainers.image.ref.name"], "1");
        let text = extract(&archive, &path_of(manifest));
        assert_eq!(manifest["digest"], format!("sha256:{}", digest(&text)));
        assert_eq!(manifest["size"], text.len());
        let manifest: Value = serde_json::from_slice(&text).unwrap();
        let config = read(&path_of(&manifest["config"]));
        assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{}", digest(&image().layer)));
        assert_eq!(config["config"]["Entrypoint"][0], "/program");
        let old = read("manifest.json");
        assert_eq!(old[0]["Layers"][0], path_of(&manifest["layers"][0]));
        let layer = &manifest["layers"][0];
        let packed = compress(&image().layer).unwrap();
        assert_eq!(
            (layer["size"].as_u64(), layer["digest"].as_str()),
            (Some(packed.len() as u64), Some(format!("sha256:{}", digest(&packed)).as_str()))
        );
    }
}
