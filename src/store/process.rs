//! Identity of a process and its machine, for leases, heartbeats and the names of temporary files.

use std::fmt;
use std::fs;

use rustix::process::{Pid, test_kill_process};
use serde::{Deserialize, Serialize};

/// Identity of a process, with which other processes can find out whether it still runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Host name.
    pub host: String,
    /// Process id.
    pub process: u32,
    /// Boot id and PID namespace, within which process ids are unique; host names need not be. `None` if
    /// the system has no `/proc`.
    #[serde(default)]
    pub machine: Option<String>,
    /// Start time in clock ticks since the boot; it distinguishes processes that get the same id. `None`
    /// if the system has no `/proc`.
    #[serde(default)]
    pub started: Option<u64>,
}

/// Whether a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// The process runs.
    Running,
    /// The process has ended.
    Gone,
    /// The process is on another machine, or its state is not visible to this process.
    Unknown,
}

impl Process {
    /// The current process.
    pub fn own() -> Self {
        let process = std::process::id();
        Self { host: host(), process, machine: machine(), started: start_time(process) }
    }

    /// Whether the process runs, as far as this process can find out.
    pub fn life(&self) -> Liveness {
        match (&self.machine, machine()) {
            (Some(machine), Some(own)) if *machine == own => {
                match (start_time(self.process), self.started) {
                    _ if !is_alive(self.process) => Liveness::Gone,
                    (Some(now), Some(then)) if now == then => Liveness::Running,
                    (Some(_), Some(_)) => Liveness::Gone,
                    _ => Liveness::Unknown,
                }
            }
            (None, None) if self.host == host() && !is_alive(self.process) => Liveness::Gone,
            _ => Liveness::Unknown,
        }
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} on {}", self.process, self.host)
    }
}

/// Host name of this machine.
pub fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Boot id and PID namespace of this process; `None` if the system has no `/proc`.
fn machine() -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = fs::read_link("/proc/self/ns/pid").ok()?;
    Some(format!("{} {}", boot.trim(), namespace.display()))
}

/// Start time of a process in clock ticks since the boot; `None` if it cannot be read.
fn start_time(process: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The fields follow the name in parentheses, which may contain any character.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19)?.parse().ok()
}

/// Whether a process of this host runs. A zombie counts as ended.
pub(super) fn is_alive(process: u32) -> bool {
    let pid = i32::try_from(process).ok().and_then(Pid::from_raw);
    // EPERM means that the process runs and belongs to another user.
    let exists = |pid| test_kill_process(pid) != Err(rustix::io::Errno::SRCH);
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The state follows the name in parentheses, which may contain any character.
    let is_zombie =
        stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'));
    pid.is_some_and(exists) && !is_zombie
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_reused_process_id_is_another_process() {
        let own = Process::own();
        assert_eq!((own.machine.is_some(), own.life()), (true, Liveness::Running));
        let other = Process { started: own.started.map(|ticks| ticks + 1), ..own };
        assert_eq!(other.life(), Liveness::Gone);
        assert_eq!(
            Process { machine: Some("another".to_owned()), ..other }.life(),
            Liveness::Unknown
        );
    }

    #[test]
    fn a_zombie_counts_as_ended() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let process =
            Process { process: child.id(), started: start_time(child.id()), ..Process::own() };
        let start = Instant::now();
        while process.life() != Liveness::Gone && start.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!((process.life(), Process::own().life()), (Liveness::Gone, Liveness::Running));
        child.wait().unwrap();
    }
}
