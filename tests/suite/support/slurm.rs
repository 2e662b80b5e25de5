//! A Slurm cluster on this machine with its own keys, ports and folders, without systemd and control
//! groups.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rand::Rng;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::skipped;

/// A Slurm cluster with one node of two CPUs. Its daemons stop when this is dropped.
pub struct Slurm {
    folder: TempDir,
    /// The daemons, in the order in which `drop` stops them.
    daemons: Vec<Child>,
}

/// PATH with the `sbin` folders, where the daemons of Slurm are installed.
pub fn path() -> String {
    let inherited = std::env::var("PATH").unwrap_or_default();
    format!("{inherited}:/usr/sbin:/usr/local/sbin")
}

fn program(name: &str) -> Option<PathBuf> {
    let path = path();
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.is_file())
}

impl Slurm {
    /// Starts the cluster. If Slurm is not installed, prints `SKIPPED` and returns `None`, or panics if
    /// `DOR_REQUIRE_SLURM` is `1`.
    pub fn start() -> Option<Self> {
        let programs = ["munged", "slurmctld", "slurmd", "sbatch"].map(program);
        let [Some(munged), Some(slurmctld), Some(slurmd), Some(_)] = programs else {
            assert_ne!(std::env::var("DOR_REQUIRE_SLURM").as_deref(), Ok("1"), "no Slurm found");
            skipped("no Slurm (slurm-wlm, munge) on PATH; no job was submitted");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["munge", "state", "spool"] {
            fs::create_dir(at(name)).unwrap();
        }
        // All users must reach the socket of munged, which refuses folders that others can write to.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(at("munge"), fs::Permissions::from_mode(0o711)).unwrap();
        let mut key = [0; 1024];
        rand::rng().fill(&mut key);
        fs::write(at("munge/key"), key).unwrap();
        fs::set_permissions(at("munge/key"), fs::Permissions::from_mode(0o400)).unwrap();
        fs::write(at("slurm.conf"), configuration(folder.path())).unwrap();
        let mut slurm = Self { folder, daemons: Vec::new() };
        let files =
            ["key-file=key", "socket=socket", "pid-file=pid", "log-file=log", "seed-file=seed"];
        let files = files.map(|file| {
            let (option, name) = file.split_once('=').unwrap();
            format!("--{option}={}", slurm.folder.path().join("munge").join(name).display())
        });
        let daemon = |program: &Path, words: &[&str]| {
            let mut command = Command::new(program);
            command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command
        };
        let conf = slurm.folder.path().join("slurm.conf").display().to_string();
        let munge = daemon(&munged, &["--force", "--foreground"]).args(&files).spawn().unwrap();
        slurm.wait_for("munge", || slurm.folder.path().join("munge/socket").exists());
        let controller = daemon(&slurmctld, &["-D", "-c", "-f", &conf]).spawn().unwrap();
        let node = daemon(&slurmd, &["-D", "-f", &conf, "-N", "localhost"]).spawn().unwrap();
        slurm.daemons = vec![node, controller, munge];
        slurm.wait_for("idle node", || {
            let state = slurm.try_ask("sinfo", &["-h", "-o", "%t"]);
            state.is_some_and(|state| state.trim() == "idle")
        });
        Some(slurm)
    }

    /// Waits up to 30 seconds until `is_there` returns true.
    fn wait_for(&self, what: &str, is_there: impl Fn() -> bool) {
        let began = Instant::now();
        while !is_there() {
            let log = fs::read_to_string(self.folder.path().join("slurmctld.log"));
            let waited = began.elapsed() < Duration::from_secs(30);
            assert!(waited, "no {what} after 30 seconds: {}", log.unwrap_or_default());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The environment variables that Slurm commands need.
    pub fn variables(&self) -> [(&'static str, String); 2] {
        let conf = self.folder.path().join("slurm.conf").display().to_string();
        [("SLURM_CONF", conf), ("PATH", path())]
    }

    /// Runs a Slurm command; returns its standard output, or `None` if it fails.
    pub fn try_ask(&self, program: &str, words: &[&str]) -> Option<String> {
        let output = Command::new(program).args(words).envs(self.variables()).output().unwrap();
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.success().then_some(stdout)
    }

    /// Runs a Slurm command, which must succeed; returns its standard output.
    pub fn ask(&self, program: &str, words: &[&str]) -> String {
        self.try_ask(program, words).unwrap_or_else(|| panic!("{program} {words:?} fails"))
    }

    /// Job id, state and reason of all pending and running jobs; one entry per array element.
    pub fn jobs(&self) -> Vec<(String, String, String)> {
        let stdout = self.ask("squeue", &["-h", "-r", "-o", "%i|%T|%r"]);
        let job = |line: &str| {
            let mut fields = line.split('|').map(str::to_owned);
            Some((fields.next()?, fields.next()?, fields.next()?))
        };
        stdout.lines().filter_map(job).collect()
    }

    /// Waits until no job is left. Requeued jobs, which Slurm holds back for two minutes, are released
    /// after 3 seconds.
    pub fn wait(&self, at_most: Duration) {
        let (began, mut seen) = (Instant::now(), BTreeMap::new());
        loop {
            let jobs = self.jobs();
            if jobs.is_empty() {
                return;
            }
            assert!(began.elapsed() < at_most, "jobs still queued after {at_most:?}: {jobs:?}");
            for (id, _, _) in jobs.iter().filter(|(_, _, reason)| reason == "BeginTime") {
                // If released within a second, Slurm takes the new job credential for the revoked one.
                let first = seen.entry(id.clone()).or_insert_with(Instant::now);
                if first.elapsed() > Duration::from_secs(3) {
                    self.try_ask("scontrol", &["update", &format!("JobId={id}"), "StartTime=now"]);
                }
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for Slurm {
    fn drop(&mut self) {
        for daemon in &mut self.daemons {
            let _ = kill_process(Pid::from_child(daemon), Signal::TERM);
            let _ = daemon.wait();
        }
    }
}

fn configuration(folder: &Path) -> String {
    let port = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let user = std::env::var("USER").unwrap_or_else(|_| "root".to_owned());
    let folder = folder.display();
    format!(
        "ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={}
SlurmdPort={}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_min_interval=200000,sched_interval=2,bf_interval=2,batch_sched_delay=0
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
KillWait=5
MinJobAge=3600
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
NodeName=localhost NodeAddr=127.0.0.1 NodeHostname=localhost CPUs=2 RealMemory=1000
PartitionName=regular Nodes=localhost Default=YES MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF
PartitionName=preempt Nodes=localhost MaxTime=INFINITE PriorityTier=1 PreemptMode=REQUEUE GraceTime=10
",
        port(),
        port()
    )
}
