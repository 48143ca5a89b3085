//! Files at rest: what holds a key, a token or a record belongs to its owner alone.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::PathBuf,
};

use tests::process::Cluster;

/// Files that hold nothing to hide, and may be read by others.
const PUBLIC: &[&str] = &["account", "cluster", "edge-1.node.pub", "edge-2.node.pub"];

#[tokio::test]
async fn files_folders_and_sockets_belong_to_their_owner_alone() {
    let cluster = Cluster::start(2).await;
    let operator = cluster.operator();
    operator.found().await;
    operator.live(operator.create_bound("API_KEY", b"s3cret").await).await;
    cluster.cli().await;

    let mut folders = vec![cluster.data(), cluster.cli_folder()];
    let (mut files, mut sockets) = (Vec::new(), 0);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let (mode, kind) = (metadata.permissions().mode() & 0o7777, metadata.file_type());
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if kind.is_dir() {
                assert_eq!(mode, 0o700, "{}", path.display());
                folders.push(path);
                continue;
            }
            sockets += usize::from(kind.is_socket());
            assert!(mode == 0o600 || PUBLIC.contains(&name.as_str()) && mode & 0o022 == 0, "{mode:o} {}", path.display());
            files.push(name);
        }
    }
    assert_eq!(sockets, 2, "the edges' sockets were looked at");
    for name in [
        "root.key",
        "signing.key",
        "control-1.node.key",
        "edge-1.node.key",
        "operator.token",
        "ca.key",
        "node-1.key",
        "contexts.toml",
        "db",
        "marks",
    ] {
        assert!(files.iter().any(|file| file == name), "{name} was not looked at: {files:?}");
    }
}
