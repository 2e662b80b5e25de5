//! Job scripts for Slurm: an array with one shard on one node for each element, and a job that finalizes the
//! results afterwards.

use std::fmt::Write;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use crate::model::{ErrorKind, WithErrorKind, hex};

/// Parameters of the job scripts. `None` leaves out the `#SBATCH` line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Jobs {
    /// Path or name of `dor` on the nodes.
    pub program: String,
    /// Location of the plan.
    pub plan: String,
    /// Number of shards, which is the number of elements of the whole array.
    pub shards: usize,
    /// Elements to run, in the syntax of `--array`; `None` for all.
    pub array: Option<String>,
    /// Quality of service; `None` for the site's default.
    pub qos: Option<String>,
    /// Partition; `None` for the site's default.
    pub partition: Option<String>,
    /// Time limit of an element, `HH:MM:SS`.
    pub time: String,
    /// Time limit of the finalizing job, `HH:MM:SS`.
    pub finalize_time: String,
    /// Account to charge.
    pub account: Option<String>,
    /// Kind of nodes, such as `cpu`.
    pub constraint: Option<String>,
    /// Logical processors of an element.
    pub cpus: Option<usize>,
    /// Shifter image to run in; `None` to run without a container.
    pub container: Option<String>,
    /// Additional arguments of `dor run`.
    pub run: Vec<String>,
    /// Additional arguments of `dor finalize`.
    pub finalize: Vec<String>,
}

/// Seconds before the time limit at which Slurm sends SIGTERM to an element.
const NOTICE: u32 = 120;

/// Names of the scripts.
const RUN_SCRIPT: &str = "dor-run.sbatch";
const FINALIZE_SCRIPT: &str = "dor-finalize.sbatch";

/// The beginning of the last line of a script.
const CHECKSUM: &str =
    "# Written by dor, which does not replace edited lines. SHA-256 of the lines above: ";

/// The scripts could not be written, or Slurm did not take one.
#[derive(Debug, thiserror::Error)]
pub enum SlurmError {
    /// The folder for the scripts cannot be made.
    #[error("cannot make the folder {}", folder.display())]
    Folder {
        /// Path of the folder.
        folder: PathBuf,
        /// Error that caused this one.
        source: io::Error,
    },
    /// The file is not a script as this program has written it.
    #[error(
        "{} was edited, or is of another program: move it away, or give another folder (--output)",
        script.display()
    )]
    Edited {
        /// Path of the batch script.
        script: PathBuf,
    },
    /// A script cannot be written.
    #[error("cannot write {}", script.display())]
    Write {
        /// Path of the batch script.
        script: PathBuf,
        /// Error that caused this one.
        source: io::Error,
    },
    /// Slurm's program cannot be run.
    #[error("cannot run sbatch: is this a login node of a Slurm cluster?")]
    Sbatch(#[source] io::Error),
    /// Slurm refused a script.
    #[error("sbatch refused {}: {reason}", script.display())]
    Refused {
        /// Path of the batch script.
        script: PathBuf,
        /// What `sbatch` printed to standard error.
        reason: String,
    },
    /// Slurm took a script, and the number of its job is unknown.
    #[error("sbatch told no number of a job for {}: {output:?}", script.display())]
    NoNumber {
        /// Path of the batch script.
        script: PathBuf,
        /// What `sbatch` printed.
        output: String,
    },
}

impl WithErrorKind for SlurmError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Edited { .. } => ErrorKind::Config,
            _ => ErrorKind::Transient,
        }
    }
}

/// Where the scripts were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scripts {
    /// Script of the array job.
    pub run: PathBuf,
    /// Script of the finalizing job; `None` when there is none.
    pub finalize: Option<PathBuf>,
}

/// Sends a script to Slurm, to run after another job has ended; its number.
///
/// # Errors
/// `sbatch` cannot be run, refuses the script, or does not print a number.
pub fn submit(script: &Path, after: Option<&str>) -> Result<String, SlurmError> {
    let mut sbatch = Command::new("sbatch");
    sbatch.arg("--parsable");
    if let Some(after) = after {
        sbatch.arg(format!("--dependency=afterany:{after}"));
    }
    let output = sbatch.arg(script).output().map_err(SlurmError::Sbatch)?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(SlurmError::Refused { script: script.to_owned(), reason });
    }
    // With several clusters, the cluster's name follows.
    let output = String::from_utf8_lossy(&output.stdout);
    let number = output.trim().split(';').next().unwrap_or_default();
    match !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) {
        true => Ok(number.to_owned()),
        false => {
            let (script, output) = (script.to_owned(), output.into_owned());
            Err(SlurmError::NoNumber { script, output })
        }
    }
}

/// Quotes a word for a shell, where that is necessary.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

impl Jobs {
    /// Writes the scripts into a folder; that of the job after the array only if there is to be one, and removes
    /// an earlier one otherwise.
    ///
    /// # Errors
    /// The folder cannot be made, a script cannot be written, or one that exists was edited.
    pub fn write_scripts(&self, folder: &Path, finalizes: bool) -> Result<Scripts, SlurmError> {
        let failed = |source| SlurmError::Folder { folder: folder.to_owned(), source };
        fs::create_dir_all(folder).map_err(failed)?;
        let [run, finalize] = [RUN_SCRIPT, FINALIZE_SCRIPT].map(|name| folder.join(name));
        refuse_edited(&run)?;
        refuse_edited(&finalize)?;
        write_script(&run, &self.run_script())?;
        if finalizes {
            write_script(&finalize, &self.finalize_script())?;
            return Ok(Scripts { run, finalize: Some(finalize) });
        }
        // One of an earlier call would put together what is not all there.
        let _ = fs::remove_file(finalize);
        Ok(Scripts { run, finalize: None })
    }

    /// Script of the array job.
    pub fn run_script(&self) -> String {
        let all = format!("0-{}", self.shards.saturating_sub(1));
        let mut text = self.head("dor-run", "%A_%a", &self.time);
        let array = self.array.as_ref().unwrap_or(&all);
        let _ = writeln!(text, "#SBATCH --array={array}");
        let _ = writeln!(text, "#SBATCH --signal=TERM@{NOTICE}");
        text.push_str("#SBATCH --requeue\n#SBATCH --open-mode=append\n\n");
        let shards = self.shards.to_string();
        let words = ["run", "--plan", &self.plan, "--shards", &shards];
        let command = self.command(&words, &self.run);
        let _ = write!(
            text,
            r#"set -u
# Folders of Slurm's and the system's programs, in case the environment of the job lacks them.
export PATH="${{PATH:-}}:/usr/local/bin:/usr/bin:/bin"
# File systems such as /dvs_ro have no locks.
export HDF5_USE_FILE_LOCKING=FALSE

# Job ID of this element. SLURM_JOB_ID is no substitute: it can be the ID of the whole array.
element="${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"

# Before the time limit and on preemption, Slurm sends SIGTERM to dor, which stops within a minute. A SIGTERM
# that only this script receives goes on to the job step; not to srun, which would kill dor.
trap 'until scancel --signal=TERM "$element.0" || ! kill -0 "${{run:-}}" 2>/dev/null; do sleep 1; done' TERM INT
# The exit code comes through a pipe: `wait` can return the status of a signal, and a file would need a
# writable folder, which TMPDIR of the node need not be. A signal to all processes ends dor, but not the shell
# that waits for its exit code.
exec 3>&1 4< <(trap : TERM INT; {command} >&3 3>&-; echo "$?")
run=$!
code=
# A signal can interrupt the read before the exit code is there.
until read -r -u 4 code || ! kill -0 "$run" 2>/dev/null; do :; done
# The exit code can arrive between the read and the test.
[ -n "$code" ] || read -r -u 4 code

# Exit code 75: dor was stopped and has work left. Slurm does not requeue a job that exits, so the script
# requests it and waits until Slurm ends the job.
if [ "$code" = 75 ] && scontrol requeue "$element"; then
    sleep 600
fi
exit "${{code:-1}}"
"#
        );
        text
    }

    /// Script of the finalizing job.
    pub fn finalize_script(&self) -> String {
        let mut text = self.head("dor-finalize", "%j", &self.finalize_time);
        let command = self.command(&["finalize", "--plan", &self.plan], &self.finalize);
        let _ = write!(
            text,
            r#"
set -u
export PATH="${{PATH:-}}:/usr/local/bin:/usr/bin:/bin"
export HDF5_USE_FILE_LOCKING=FALSE
# Exit code 3: cases are missing; dor status --plan shows which elements to run again.
exec {command}
"#
        );
        text
    }

    /// The `#SBATCH` lines that both scripts have.
    fn head(&self, name: &str, log: &str, time: &str) -> String {
        let cpus = self.cpus.map(|cpus| cpus.to_string());
        let options = [
            ("job-name", Some(name)),
            ("account", self.account.as_deref()),
            ("qos", self.qos.as_deref()),
            ("partition", self.partition.as_deref()),
            ("constraint", self.constraint.as_deref()),
            ("time", Some(time)),
            ("nodes", Some("1")),
            ("ntasks", Some("1")),
            ("cpus-per-task", cpus.as_deref()),
        ];
        let mut text = "#!/bin/bash\n".to_owned();
        for (option, value) in options {
            if let Some(value) = value {
                let _ = writeln!(text, "#SBATCH --{option}={value}");
            }
        }
        let _ = writeln!(text, "#SBATCH --output={name}-{log}.log");
        text
    }

    /// The command of a job step that runs `dor` on all processors of the job.
    fn command(&self, words: &[&str], additional: &[String]) -> String {
        let mut all = vec!["srun", "--ntasks=1", "--cpu-bind=none"];
        let cpus = self.cpus.map(|cpus| format!("--cpus-per-task={cpus}"));
        all.extend(cpus.as_deref());
        let image = self.container.as_ref().map(|image| format!("--image={image}"));
        if let Some(image) = &image {
            all.extend(["shifter", image]);
        }
        all.push(&self.program);
        all.extend(words);
        all.extend(additional.iter().map(String::as_str));
        all.into_iter().map(quoted).collect::<Vec<_>>().join(" ")
    }
}

/// Writes a script, with the checksum of its lines as the last line.
fn write_script(script: &Path, text: &str) -> Result<(), SlurmError> {
    let failed = |source| SlurmError::Write { script: script.to_owned(), source };
    fs::write(script, format!("{text}{}", checksum_line(text))).map_err(failed)
}

/// Refuses to replace a script that was edited since it was written.
fn refuse_edited(script: &Path) -> Result<(), SlurmError> {
    let edited = || Err(SlurmError::Edited { script: script.to_owned() });
    match fs::read_to_string(script) {
        Ok(found) => match found.rfind(CHECKSUM) {
            Some(end) if checksum_line(&found[..end]) == found[end..] => Ok(()),
            _ => edited(),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(_) => edited(),
    }
}

/// The last line of a script. `text` has the lines before it.
fn checksum_line(text: &str) -> String {
    format!("{CHECKSUM}{}\n", hex(&Sha256::digest(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scripts_in_infra_are_those_for_perlmutter() {
        let jobs = Jobs {
            program: "dor".to_owned(),
            plan: "/pscratch/sd/m/me/atlas/plan.json".to_owned(),
            shards: 16,
            qos: Some("regular".to_owned()),
            time: "04:00:00".to_owned(),
            finalize_time: "01:00:00".to_owned(),
            account: Some("m0000".to_owned()),
            constraint: Some("cpu".to_owned()),
            cpus: Some(256),
            ..Jobs::default()
        };
        assert_eq!(jobs.run_script(), include_str!("../../infra/slurm/dor-run.sbatch"));
        assert_eq!(jobs.finalize_script(), include_str!("../../infra/slurm/dor-finalize.sbatch"));
    }

    #[test]
    fn scripts_have_the_parameters() {
        let jobs = Jobs {
            program: "/opt/my tools/dor".to_owned(),
            plan: "s3://b/it's.json".to_owned(),
            shards: 16,
            qos: Some("regular".to_owned()),
            time: "04:00:00".to_owned(),
            account: Some("m1".to_owned()),
            cpus: Some(256),
            container: Some("ghcr.io/x/dor:1".to_owned()),
            ..Jobs::default()
        };
        let run = jobs.run_script();
        for line in ["#SBATCH --array=0-15", "#SBATCH --qos=regular", "#SBATCH --account=m1"] {
            assert!(run.lines().any(|found| found == line), "{line} is not in {run}");
        }
        let command =
            "shifter --image=ghcr.io/x/dor:1 '/opt/my tools/dor' run --plan 's3://b/it'\\''s.json'";
        assert!(run.contains(command), "{run}");
        assert!(!run.contains("constraint") && !run.contains("squeue"));
        let some = Jobs { array: Some("3,7".to_owned()), ..jobs };
        assert!(some.run_script().contains("--array=3,7\n"));
        assert!(some.run_script().contains("--shards 16"));
    }

    #[test]
    fn an_edited_script_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let jobs = |shards| Jobs { shards, ..Jobs::default() };
        let Scripts { run, finalize } = jobs(1).write_scripts(folder.path(), true).unwrap();
        let finalize = finalize.unwrap();
        jobs(2).write_scripts(folder.path(), true).unwrap();
        let written = fs::read_to_string(&run).unwrap();
        assert!(written.contains("--shards 2"), "{written}");
        for edited in [written.replace("--shards 2", "--shards 3"), written + "echo\n"] {
            fs::write(&run, &edited).unwrap();
            let error = jobs(4).write_scripts(folder.path(), true).unwrap_err();
            assert!(matches!(&error, SlurmError::Edited { script } if *script == run), "{error}");
            assert_eq!(fs::read_to_string(&run).unwrap(), edited);
        }
        fs::remove_file(run).unwrap();
        // One that is not written again is not removed either.
        fs::write(&finalize, "#!/bin/bash\n").unwrap();
        assert!(jobs(4).write_scripts(folder.path(), false).is_err());
        assert!(finalize.exists());
    }
}
