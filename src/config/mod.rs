//! Layer 6: the configuration file. Strict: an unknown key, a wrong type or a value out of range
//! names file, line, key and remedy, and nothing starts.

mod check;
pub mod dialects;
pub mod error;
pub mod file;
pub mod policy;

use std::path::Path;

pub use error::ConfigError;
pub use file::Config;

/// Reads and checks the file at `path`.
///
/// # Errors
/// When the file cannot be read, does not parse, or a value cannot work.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let text =
        std::fs::read_to_string(path).map_err(|error| ConfigError::unreadable(path, &error))?;
    let mut config = parse(path, &text)?;
    let paths = [
        &mut config.selection.policy,
        &mut config.instruments.dump_dir,
    ];
    for written in paths.into_iter().flatten() {
        if let Some(directory) = path.parent() {
            *written = directory.join(&*written);
        }
    }
    Ok(config)
}

/// Checks `text`; `path` is only named in errors.
///
/// # Errors
/// As [`load`].
pub fn parse(path: &Path, text: &str) -> Result<Config, ConfigError> {
    let config: Config =
        toml::from_str(text).map_err(|error| ConfigError::syntax(path, text, &error))?;
    config
        .check()
        .map_err(|problem| ConfigError::value(path, text, problem))?;
    Ok(config)
}

#[cfg(test)]
mod tests;
