//! The batch scripts of Slurm, run with replacements of Slurm's commands in incomplete environments.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use dor_atlas::campaign::slurm::Jobs;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::os::unix::process::CommandExt;

/// A folder with the replaced commands and the scripts. `program` is the shell code that they run.
fn folder(program: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, format!("#!/bin/bash\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    put("srun", r#"while [[ $1 == --* ]]; do shift; done; exec "$@""#);
    // Like Slurm, it signals the job step.
    put("scancel", &format!("kill -TERM $(<{}/pid)", folder.path().display()));
    put("scontrol", &format!("echo \"$*\" >>{}/asked; exit 1", folder.path().display()));
    put("program", &format!("echo $$ >{}/pid\n{program}", folder.path().display()));
    let jobs = Jobs {
        program: folder.path().join("program").to_str().unwrap().to_owned(),
        plan: "plan.json".to_owned(),
        shards: 1,
        time: "01:00:00".to_owned(),
        finalize_time: "01:00:00".to_owned(),
        ..Jobs::default()
    };
    put("run.sbatch", &jobs.run_script());
    put("finalize.sbatch", &jobs.finalize_script());
    folder
}

/// Runs a script of the folder as element 0 of array job 5.
fn script(folder: &tempfile::TempDir, name: &str, environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new("/bin/bash");
    command.arg(folder.path().join(name)).env_clear().current_dir(folder.path());
    command.env("SLURM_ARRAY_JOB_ID", "5").env("SLURM_ARRAY_TASK_ID", "0");
    command.env("PATH", folder.path()).envs(environment.iter().copied()).stdin(Stdio::null());
    command
}

#[test]
fn scripts_exit_with_the_code_of_the_program_in_every_environment() {
    let nowhere = "/nowhere/of/the/login/node";
    for code in [0, 1, 3, 65, 75, 78] {
        let folder = folder(&format!("echo said; exit {code}"));
        let whole = format!("{}:/usr/bin:/bin", folder.path().display());
        for environment in [
            &[("TMPDIR", nowhere)][..],
            &[("HOME", nowhere), ("TMPDIR", nowhere)],
            // PATH has no folders of the system: the script adds them.
            &[],
            &[("PATH", &*whole), ("TMPDIR", "/proc")],
        ] {
            for name in ["run.sbatch", "finalize.sbatch"] {
                let output = script(&folder, name, environment).output().unwrap();
                let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
                assert_eq!(output.status.code(), Some(code), "{name} {environment:?}: {stderr}");
                assert_eq!(output.stdout, b"said\n", "{name} {environment:?}: {stderr}");
            }
        }
        let scontrol_calls = fs::read_to_string(folder.path().join("asked")).unwrap_or_default();
        assert_eq!(scontrol_calls.lines().next(), (code == 75).then_some("requeue 5_0"), "{code}");
    }
}

#[test]
fn signals_to_the_script_or_its_process_group_keep_the_exit_code() {
    for to_group in [false, true] {
        let folder =
            folder("trap 'sleep 0.3; exit 75' TERM INT; for n in {1..200}; do sleep 0.1; done");
        let mut command = script(&folder, "run.sbatch", &[("TMPDIR", "/nowhere")]);
        let mut child = command.process_group(0).spawn().unwrap();
        let began = Instant::now();
        let pid = folder.path().join("pid");
        while fs::read_to_string(&pid).is_ok_and(|text| text.is_empty()) || !pid.exists() {
            assert!(began.elapsed() < Duration::from_secs(20), "the program does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        let group = Pid::from_child(&child);
        for signal in [Signal::TERM, Signal::TERM, Signal::INT] {
            std::thread::sleep(Duration::from_millis(100));
            match to_group {
                true => kill_process_group(group, signal).unwrap(),
                false => kill_process(group, signal).unwrap(),
            }
        }
        assert_eq!(child.wait().unwrap().code(), Some(75), "to the process group: {to_group}");
    }
}
