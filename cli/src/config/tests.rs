//! Layers, origins and errors of the configuration.

use super::*;

fn vars(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("g.toml");
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

#[test]
fn later_layers_win_and_say_so() {
    let (_folder, path) = file("[log]\nformat = \"json\"\nlevel = \"info\"\n");
    let environment = vars(&[("GRANARY_LOG_LEVEL", "debug")]);
    let settings = Settings::load(Some(&path), &environment, &[]).unwrap();
    assert_eq!(settings.text("log", "format"), "json");
    assert_eq!(settings.entry("log", "format").origin, Origin::File(path.clone(), 2));
    assert_eq!(settings.text("log", "level"), "debug");
    assert_eq!(settings.entry("log", "level").origin.to_string(), "environment GRANARY_LOG_LEVEL");
    let sets = ["log.level=trace".to_owned()];
    let settings = Settings::load(Some(&path), &environment, &sets).unwrap();
    assert_eq!(settings.text("log", "level"), "trace");
    assert_eq!(settings.entry("log", "level").origin.to_string(), "flag --set log.level");
}

#[test]
fn unknown_names_tell_place_and_nearest() {
    let (_folder, path) = file("[log]\n\nlevle = \"info\"\n");
    let failure = Settings::load(Some(&path), &[], &[]).unwrap_err();
    assert_eq!(failure.message, format!("{}:3: unknown key \"levle\" in [log]", path.display()));
    assert_eq!(failure.hint.as_deref(), Some("did you mean \"level\"?"));

    let (_folder, path) = file("[clutser]\n");
    let failure = Settings::load(Some(&path), &[], &[]).unwrap_err();
    assert_eq!(failure.message, format!("{}:1: unknown section [clutser]", path.display()));
    assert_eq!(failure.hint.as_deref(), Some("did you mean \"cluster\"?"));

    let environment = vars(&[("GRANARY_LOG_FROMAT", "json"), ("GRANARY_OTHER", "x")]);
    let failure = Settings::load(Some(&file("").1), &environment, &[]);
    assert!(failure.is_err(), "the folder of that file is gone");
    let (_folder, path) = file("");
    let failure = Settings::load(Some(&path), &environment, &[]).unwrap_err();
    assert!(failure.message.starts_with("environment GRANARY_LOG_FROMAT: unknown key"));
    assert_eq!(failure.hint.as_deref(), Some("did you mean \"format\"?"));
}

#[test]
fn a_value_of_the_wrong_type_names_its_place() {
    let (_folder, path) = file("[cluster]\ninsecure = 3\n");
    let failure = Settings::load(Some(&path), &[], &[]).unwrap_err();
    let expected = format!("{}:2: cluster.insecure: expected boolean, got integer", path.display());
    assert_eq!(failure.message, expected);
}

#[test]
fn a_named_file_that_is_not_there_is_an_error() {
    let failure = Settings::load(Some(Path::new("/nowhere/g.toml")), &[], &[]).unwrap_err();
    assert_eq!(failure.message, "--config /nowhere/g.toml: no such file");
}

#[test]
fn loopback_is_told_from_the_rest() {
    for addr in ["127.0.0.1:80", "localhost:1", "[::1]:9", "127.9.9.9:0", ""] {
        assert!(is_loopback(addr), "{addr}");
    }
    for addr in ["0.0.0.0:80", "[::]:80", "10.0.0.1:1", "example.org:1", "::"] {
        assert!(!is_loopback(addr), "{addr}");
    }
}
