//! Where the built binary is.

use std::path::PathBuf;

/// The binary of the profile that this test was built with: `target/PROFILE/cinnabar`, beside the test's own folder; or the one that
/// `CINNABAR_BINARY` names, to test a build as it is shipped.
///
/// # Panics
/// When it is not there, saying how to build it.
pub fn binary() -> PathBuf {
    if let Some(named) = std::env::var_os("CINNABAR_BINARY") {
        return named.into();
    }
    let own = std::env::current_exe().expect("the system knows this test's executable");
    let profile = own.parent().and_then(|deps| deps.parent()).expect("a test lies in target/PROFILE/deps");
    let binary = profile.join("cinnabar");
    assert!(binary.is_file(), "{} is missing: build it with `cargo build -p cinnabar`, then run the test again", binary.display());
    binary
}
