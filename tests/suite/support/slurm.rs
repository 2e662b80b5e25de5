//! A real Slurm on this machine: its own keys, ports and folders; no systemd, no control groups.

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

/// Slurm with one node of two processors; stops with this value.
pub struct Slurm {
    folder: TempDir,
    /// In the order in which they are stopped.
    daemons: Vec<Child>,
}

/// Where the programs are: daemons are not on everybody's PATH.
pub fn path() -> String {
    let own = std::env::var("PATH").unwrap_or_default();
    format!("{own}:/usr/sbin:/usr/local/sbin")
}

fn program(name: &str) -> Option<PathBuf> {
    let path = path();
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.is_file())
}

impl Slurm {
    /// `None`, loudly, when it is not installed; a failure when `DOR_REQUIRE_SLURM` is `1`.
    pub fn start() -> Option<Self> {
        let programs = ["munged", "slurmctld", "slurmd", "sbatch"].map(program);
        let [Some(munged), Some(slurmctld), Some(slurmd), Some(_)] = programs else {
            assert_ne!(std::env::var("DOR_REQUIRE_SLURM").as_deref(), Ok("1"), "no Slurm found");
            skipped("no Slurm (slurm-wlm, munge) on PATH; no job was sent to one");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["munge", "state", "spool"] {
            fs::create_dir(at(name)).unwrap();
        }
        // Others may pass through, and not write.
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
        slurm.wait_for("a node", || {
            let state = slurm.try_ask("sinfo", &["-h", "-o", "%t"]);
            state.is_some_and(|state| state.trim() == "idle")
        });
        Some(slurm)
    }

    fn wait_for(&self, what: &str, is_there: impl Fn() -> bool) {
        let began = Instant::now();
        while !is_there() {
            let log = fs::read_to_string(self.folder.path().join("slurmctld.log"));
            let waited = began.elapsed() < Duration::from_secs(30);
            assert!(waited, "Slurm has not {what}: {}", log.unwrap_or_default());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What the commands of Slurm need in their environment.
    pub fn variables(&self) -> [(&'static str, String); 2] {
        let conf = self.folder.path().join("slurm.conf").display().to_string();
        [("SLURM_CONF", conf), ("PATH", path())]
    }

    /// What a command of Slurm says, when it succeeds.
    pub fn try_ask(&self, program: &str, words: &[&str]) -> Option<String> {
        let output = Command::new(program).args(words).envs(self.variables()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.success().then_some(said)
    }

    /// What a command of Slurm says; it must succeed.
    pub fn ask(&self, program: &str, words: &[&str]) -> String {
        self.try_ask(program, words).unwrap_or_else(|| panic!("{program} {words:?} fails"))
    }

    /// Jobs that wait or run: number, state and reason, an element each.
    pub fn jobs(&self) -> Vec<(String, String, String)> {
        let said = self.ask("squeue", &["-h", "-r", "-o", "%i|%T|%r"]);
        let job = |line: &str| {
            let mut fields = line.split('|').map(str::to_owned);
            Some((fields.next()?, fields.next()?, fields.next()?))
        };
        said.lines().filter_map(job).collect()
    }

    /// Waits until no job is left; what is queued again does not wait its two minutes.
    pub fn wait(&self, at_most: Duration) {
        let (began, mut seen) = (Instant::now(), BTreeMap::new());
        loop {
            let jobs = self.jobs();
            if jobs.is_empty() {
                return;
            }
            assert!(began.elapsed() < at_most, "these jobs do not end: {jobs:?}");
            for (id, _, _) in jobs.iter().filter(|(_, _, reason)| reason == "BeginTime") {
                // Within a second, its leave to start would count as revoked with the one before.
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
