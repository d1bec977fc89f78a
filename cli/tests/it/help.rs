//! Help, usage errors, exit codes, completions.

use crate::binary::Home;

#[test]
fn help_is_grouped_and_ends_with_examples() {
    let ran = Home::new().run(&["--help"]).ok();
    let text = ran.text();
    let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what:?} is not in {text}"));
    assert!(at("Run a cluster:") < at("Files:"));
    assert!(at("Files:") < at("Jobs and stores:"));
    assert!(at("--cluster") < at("Examples:"));
    assert!(text.lines().count() < 70, "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 110), "{text}");
}

#[test]
fn every_command_explains_itself() {
    let home = Home::new();
    for words in
        [&["fs", "put"][..], &["up"], &["store", "rollback"], &["job"], &["load"], &["demo"]]
    {
        let mut args = vec!["help"];
        args.extend(words);
        assert!(home.run(&args).ok().text().contains("Usage: granary"), "{words:?}");
    }
    home.run(&["help", "nonsense"]).failed(2, "no such command or topic");
}

#[test]
fn exit_codes_are_listed() {
    let ran = Home::new().run(&["help", "exit-codes"]).ok();
    for line in ["  0  success", "  3  no such file", "141  "] {
        assert!(ran.text().contains(line), "{}", ran.text());
    }
}

#[test]
fn a_wrong_option_ends_with_2_and_names_it() {
    let home = Home::new();
    home.run(&["fs", "ls", "--reverze"]).failed(2, "--reverze");
    home.run(&["frobnicate"]).failed(2, "frobnicate");
    home.run(&["fs", "test", "/x"]).failed(2, "--exists");
    home.run(&["up", "--dir", "x", "--datanodes", "0"]).failed(2, "--datanodes");
}

#[test]
fn completions_are_printed() {
    let ran = Home::new().run(&["completions", "bash"]).ok();
    assert!(ran.text().contains("_granary"));
}

#[test]
fn a_reader_who_goes_away_ends_it_quietly() {
    use std::process::Stdio;
    let home = Home::new();
    let mut command = home.command(&["completions", "zsh"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    // A script larger than the pipe's buffer, or a reader gone before the first write.
    assert!(matches!(output.status.code(), Some(141 | 0)), "{:?}", output.status);
}
