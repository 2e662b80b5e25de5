//! Completion of commands, options and values, by the script in a real bash.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::support::dor::dor;

/// What bash offers for the last of these words; the folder is the working folder and the home.
fn offered(folder: &Path, line: &str) -> Vec<String> {
    let words: Vec<&str> = line.split(' ').collect();
    let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    let last = words.len() - 1;
    // Bash calls the function with the program, the word and the word before it.
    let script = format!(
        "source <(dor completions bash)\nCOMP_WORDS=({})\nCOMP_CWORD={last}\nCOMP_TYPE=9\n\
         _clap_complete_dor dor '{}' '{}'\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n",
        quoted.join(" "),
        words[last],
        words[last.saturating_sub(1)],
    );
    let programs = Path::new(env!("CARGO_BIN_EXE_dor")).parent().unwrap();
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", &script]).current_dir(folder).env_clear().env("HOME", folder);
    bash.env("PATH", format!("{}:/usr/bin:/bin", programs.display()));
    let output = bash.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("error"), "{line}: {said}");
    let offered = String::from_utf8(output.stdout).unwrap();
    offered.lines().filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_options_and_values() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("plans")).unwrap();
    std::fs::create_dir_all(folder.path().join(".aws")).unwrap();
    std::fs::write(folder.path().join("plan.json"), "").unwrap();
    std::fs::write(folder.path().join(".aws/config"), "[profile lab]\n").unwrap();
    for (line, expected) in [
        ("dor setup", &["setup-environment"][..]),
        ("dor research-data list", &["list-cases"]),
        ("dor research-data list-cases --sta", &["--state"]),
        ("dor research-data list-cases --state d", &["damaged", "done"]),
        ("dor research-data list-cases --month ", &["1", "4", "7", "10"]),
        ("dor research-data list-cases --case 112-0", &["112-01", "112-04", "112-07"]),
        ("dor research-data list-cases --case 5-01,112-1", &["5-01,112-10"]),
        ("dor research-data process-case 689-1", &["689-10"]),
        ("dor publish here there --case 112-1", &["112-10"]),
        (
            "dor plan -o x -p 68",
            &["68", "680", "681", "682", "683", "684", "685", "686", "687", "688", "689"],
        ),
        ("dor plan -o x -p 1,686-", &["1,686-686", "1,686-687", "1,686-688", "1,686-689"]),
        ("dor plan -o x --products store2,s", &["store2,store1", "store2,store2", "store2,store3"]),
        ("dor run --plan p", &["plans/", "plan.json"]),
        ("dor vis plot --variable D", &["DIC", "DIC_SURF"]),
        ("dor vis plot --band ", &["delta", "experimental"]),
        ("dor vis create-template-store2 --levels ", &["1", "2", "3", "4", "5", "6"]),
        ("dor vis create-template-store2 --zarr-format ", &["2", "3"]),
        ("dor vis check pl", &["plans/", "plan.json"]),
        ("dor status --profile ", &["lab", "minio", "source-coop"]),
        ("dor demo --format cdf", &["cdf1", "cdf2", "cdf5"]),
        ("dor demo --shape ", &["full", "medium", "small"]),
        ("dor completions f", &["fish"]),
    ] {
        let mut offered = offered(folder.path(), line);
        let mut expected = expected.to_vec();
        offered.sort_unstable();
        expected.sort_unstable();
        assert_eq!(offered, expected, "{line}");
    }
}

#[test]
fn a_completion_is_quick_and_needs_neither_configuration_nor_network() {
    let folder = tempfile::tempdir().unwrap();
    let toml = "outputdir = 'x'\n[s3]\nendpoint_url = 'http://203.0.113.1'\n";
    std::fs::write(folder.path().join("dor.toml"), toml).unwrap();
    let began = Instant::now();
    let mut command = dor(folder.path());
    command.env("DOR_COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", "3");
    let output = command.args(["--", "dor", "vis", "check", "s3://b"]).output().unwrap();
    assert!(output.status.success() && output.stdout.is_empty());
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}
