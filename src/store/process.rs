//! Which process, on which machine: for leases, marks and the names of unfinished files.

use std::fmt;
use std::fs;

use rustix::process::{Pid, test_kill_process};
use serde::{Deserialize, Serialize};

/// A process, as others can tell whether it still runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Name of its host.
    pub host: String,
    /// Its number.
    pub process: u32,
    /// Where numbers of processes mean the same: what has booted, and the container in it. Hosts of
    /// the same name may be many.
    #[serde(default)]
    pub machine: Option<String>,
    /// When it was started, in ticks of that machine: its number may be another's by now.
    #[serde(default)]
    pub started: Option<u64>,
}

/// Whether a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// It runs.
    Running,
    /// It does not.
    Gone,
    /// It is of another machine, or hidden from this process.
    Unknown,
}

impl Process {
    /// This one.
    pub fn own() -> Self {
        let process = std::process::id();
        Self { host: host(), process, machine: machine(), started: started(process) }
    }

    /// Whether it runs, as far as can be known from here.
    pub fn life(&self) -> Liveness {
        match (&self.machine, machine()) {
            (Some(theirs), Some(ours)) if *theirs == ours => {
                match (started(self.process), self.started) {
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

/// Name of this host.
pub fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The machine and container that this process is in, where that can be known.
fn machine() -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let processes = fs::read_link("/proc/self/ns/pid").ok()?;
    Some(format!("{} {}", boot.trim(), processes.display()))
}

/// When a process was started.
fn started(process: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The fields follow the name, which may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19)?.parse().ok()
}

/// Whether a process of this host runs. One that has ended and only waits for its parent to notice does not.
pub(super) fn is_alive(process: u32) -> bool {
    let pid = i32::try_from(process).ok().and_then(Pid::from_raw);
    // EPERM would mean a live process of somebody else.
    let is_there = |pid| test_kill_process(pid) != Err(rustix::io::Errno::SRCH);
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The state follows the name, which may hold anything.
    let is_zombie =
        stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'));
    pid.is_some_and(is_there) && !is_zombie
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_process_that_has_the_number_of_another_is_not_taken_for_it() {
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
    fn a_process_that_only_waits_to_be_noticed_is_gone() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let process =
            Process { process: child.id(), started: started(child.id()), ..Process::own() };
        let began = Instant::now();
        while process.life() != Liveness::Gone && began.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!((process.life(), Process::own().life()), (Liveness::Gone, Liveness::Running));
        child.wait().unwrap();
    }
}
