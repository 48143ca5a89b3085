//! Where the built binary is.

use std::path::PathBuf;

/// The binary of the profile that this test was built with: `target/PROFILE/cinnabar`, where this program's own build is; or the one that
/// `CINNABAR_BINARY` names, to test a build as it is shipped.
///
/// # Panics
/// When it is not there, saying how to build it.
pub fn binary() -> PathBuf {
    if let Some(named) = std::env::var_os("CINNABAR_BINARY") {
        return named.into();
    }
    let own = std::env::current_exe().expect("the system knows this test's executable");
    // A test lies in target/PROFILE/deps, another program in target/PROFILE.
    let folder = own.parent().expect("an executable lies in a folder");
    let profile = if folder.ends_with("deps") { folder.parent().expect("the profile's folder") } else { folder };
    let binary = profile.join("cinnabar");
    assert!(binary.is_file(), "{} is missing: build it with `cargo build -p cinnabar`, then run the test again", binary.display());
    binary
}
