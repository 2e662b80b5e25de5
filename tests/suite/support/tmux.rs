//! A terminal of a given size: a tmux with a server of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::skipped;

/// Longest time that a program may take to show something.
const PATIENCE: Duration = Duration::from_secs(120);

/// A terminal in which a program runs; it ends with this value.
pub struct Terminal {
    folder: TempDir,
}

impl Terminal {
    /// Runs `dor` with these words in `folder`. `None`, loudly, when there is no tmux; a failure when
    /// `DOR_REQUIRE_TMUX` is `1`.
    pub fn start(columns: u16, folder: &Path, words: &str) -> Option<Self> {
        Self::run(columns, folder, words, ":")
    }

    /// The same for a program that ignores SIGHUP, as under `nohup`.
    pub fn start_without_hangups(columns: u16, folder: &Path, words: &str) -> Option<Self> {
        Self::run(columns, folder, words, "")
    }

    fn run(columns: u16, folder: &Path, words: &str, on_hangup: &str) -> Option<Self> {
        if Command::new("tmux").arg("-V").stdout(Stdio::null()).status().is_err() {
            assert_ne!(std::env::var("DOR_REQUIRE_TMUX").as_deref(), Ok("1"), "no tmux found");
            skipped("no `tmux` on PATH; nothing was tested in a terminal");
            return None;
        }
        let this = Self { folder: tempfile::tempdir().unwrap() };
        fs::write(this.path("conf"), "set -g status off\n").unwrap();
        // The shell outlives a hangup and Ctrl-C, to write the exit code.
        let script = format!(
            "trap '{on_hangup}' HUP; trap : INT; cd {}; env -i HOME=. TERM=$TERM AWS_EC2_METADATA_DISABLED=true {} {words}; code=$?; \
             echo $code > {}; echo ended with $code; exec sleep 600",
            folder.display(),
            env!("CARGO_BIN_EXE_dor"),
            this.path("code").display()
        );
        let size = ["-x", &columns.to_string(), "-y", "24"];
        this.tmux(&[&["new-session", "-d"], &size[..], &["sh", "-c", &script]].concat());
        Some(this)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What a command of tmux prints.
    fn tmux(&self, words: &[&str]) -> String {
        let mut command = Command::new("tmux");
        command.arg("-u").arg("-S").arg(self.path("socket")).arg("-f").arg(self.path("conf"));
        let output = command.args(words).env_remove("TMUX").output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The lines on the screen and above it, without spaces at their ends and empty lines below.
    pub fn lines(&self) -> Vec<String> {
        let screen = self.tmux(&["capture-pane", "-p", "-S", "-"]);
        screen.trim_end().lines().map(|line| line.trim_end().to_owned()).collect()
    }

    /// Waits until the screen is as wanted, and returns its lines.
    #[track_caller]
    pub fn wait_for(&self, mut is_wanted: impl FnMut(&[String]) -> bool) -> Vec<String> {
        let began = Instant::now();
        loop {
            let lines = self.lines();
            if is_wanted(&lines) {
                return lines;
            }
            assert!(began.elapsed() < PATIENCE, "the screen stays {lines:#?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Presses a key, such as `C-c`.
    pub fn press(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    /// Closes the terminal while the program runs, and returns the exit code of the program.
    pub fn hang_up(&self) -> i32 {
        self.tmux(&["kill-server"]);
        let began = Instant::now();
        loop {
            let code = fs::read_to_string(self.path("code")).unwrap_or_default();
            if let Ok(code) = code.trim().parse() {
                return code;
            }
            assert!(began.elapsed() < PATIENCE, "the program has not ended");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(self.path("socket")).arg("kill-server");
        // The server is gone after a hangup.
        let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}
