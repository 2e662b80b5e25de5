//! Jobs for Slurm: an array of which each element is a shard on a node of its own, and a job after it that
//! puts the results together.

use std::fmt::Write;

/// What a plan asks of Slurm.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Jobs {
    /// The program as the nodes find it.
    pub program: String,
    /// Location of the plan.
    pub plan: String,
    /// Number of shards: elements of the whole array.
    pub shards: usize,
    /// Which elements to run, as `--array` takes it: all when `None`.
    pub array: Option<String>,
    /// Quality of service, when it is not the site's default.
    pub qos: Option<String>,
    /// Partition, when it is not the site's default.
    pub partition: Option<String>,
    /// Time limit of an element, `HH:MM:SS`.
    pub time: String,
    /// Time limit of the job that puts the results together.
    pub finalize_time: String,
    /// Account that is charged.
    pub account: Option<String>,
    /// Kind of nodes.
    pub constraint: Option<String>,
    /// Processors of an element.
    pub cpus: Option<usize>,
    /// Image to run in, with Shifter.
    pub container: Option<String>,
    /// More arguments of `dor run`.
    pub run: Vec<String>,
    /// More arguments of `dor finalize`.
    pub finalize: Vec<String>,
}

/// Seconds before the end of the time that an element is told to stop.
const NOTICE: u32 = 120;

/// A word as a shell takes it.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

impl Jobs {
    /// The script of the array.
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
# Where Slurm and the system have their programs, should the environment of the job lack it.
export PATH="${{PATH:-}}:/usr/local/bin:/usr/bin:/bin"
# File systems such as /dvs_ro have no locks.
export HDF5_USE_FILE_LOCKING=FALSE

# Its number in the array: its own number may be that of the whole array.
element="${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"

# When time is nearly up or somebody needs the node, Slurm tells dor, which stops within a minute. What is told to this
# script only is handed on; not to srun, which would kill dor.
trap 'until scancel --signal=TERM "$element.0" || ! kill -0 "${{run:-}}" 2>/dev/null; do sleep 1; done' TERM INT
# The exit code comes through a pipe: what a wait tells can be that of a signal, and a file needs a place,
# which TMPDIR of the node may not be. A signal to all processes ends dor, not the shell that waits for its code.
exec 3>&1 4< <(trap : TERM INT; {command} >&3 3>&-; echo "$?")
run=$!
code=
# A signal may end the reading, not what it waits for.
until read -r -u 4 code || ! kill -0 "$run" 2>/dev/null; do :; done
# It may have come in between.
[ -n "$code" ] || read -r -u 4 code

# Told to stop, it has more to do. A job that ends by itself is not queued again, so it asks for that,
# and waits to be taken away.
if [ "$code" = 75 ] && scontrol requeue "$element"; then
    sleep 600
fi
exit "${{code:-1}}"
"#
        );
        text
    }

    /// The script of the job after the array.
    pub fn finalize_script(&self) -> String {
        let mut text = self.head("dor-finalize", "%j", &self.finalize_time);
        let command = self.command(&["finalize", "--plan", &self.plan], &self.finalize);
        let _ = write!(
            text,
            r#"
set -u
export PATH="${{PATH:-}}:/usr/local/bin:/usr/bin:/bin"
export HDF5_USE_FILE_LOCKING=FALSE
# Exit code 3 says that cases are missing: dor status --plan tells which elements to run again.
exec {command}
"#
        );
        text
    }

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

    /// A step of the job that runs the program with these words, on all its processors.
    fn command(&self, words: &[&str], more: &[String]) -> String {
        let mut all = vec!["srun", "--ntasks=1", "--cpu-bind=none"];
        let cpus = self.cpus.map(|cpus| format!("--cpus-per-task={cpus}"));
        all.extend(cpus.as_deref());
        let image = self.container.as_ref().map(|image| format!("--image={image}"));
        if let Some(image) = &image {
            all.extend(["shifter", image]);
        }
        all.push(&self.program);
        all.extend(words);
        all.extend(more.iter().map(String::as_str));
        all.into_iter().map(quoted).collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scripts_for_perlmutter_are_what_is_written() {
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
    fn scripts_say_what_was_asked_for() {
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
}
