//! A node held below the feature level of its build: for tests of clusters of mixed versions, and for an operator who brings in a new
//! build and wants it to be as the old one until all have it.

use types::FeatureLevel;

/// The environment variable that names the highest feature level that a server's process goes along with. It only ever lowers.
pub const LEVEL_MAX_VARIABLE: &str = "CINNABAR_LEVEL_MAX";

/// The variable is not a feature level.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the environment variable {LEVEL_MAX_VARIABLE} must be a feature level from 1 to {build}, this build's; unset it, or correct it")]
pub struct LevelMaxError {
    build: FeatureLevel,
}

/// The highest feature level that this process goes along with: the build's, or less by [`LEVEL_MAX_VARIABLE`].
///
/// # Errors
/// [`LevelMaxError`]: a level of 0, above the build's, or no number.
pub fn feature_level_max(build: FeatureLevel) -> Result<FeatureLevel, LevelMaxError> {
    let Some(text) = std::env::var_os(LEVEL_MAX_VARIABLE) else { return Ok(build) };
    read(build, text.to_str())
}

fn read(build: FeatureLevel, text: Option<&str>) -> Result<FeatureLevel, LevelMaxError> {
    let level = text.and_then(|text| text.parse().ok()).map(FeatureLevel::new);
    level.filter(|level| (FeatureLevel::new(1)..=build).contains(level)).ok_or(LevelMaxError { build })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn level_of_the_environment_lowers_and_never_raises() {
        let build = FeatureLevel::new(2);
        assert_eq!(read(build, Some("1")), Ok(FeatureLevel::new(1)));
        assert_eq!(read(build, Some("2")), Ok(build));
        for wrong in [Some("0"), Some("3"), Some("two"), Some(""), None] {
            assert_eq!(read(build, wrong), Err(LevelMaxError { build }), "{wrong:?}");
        }
    }
}
