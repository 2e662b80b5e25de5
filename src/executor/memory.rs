//! The memory limit of this process: of the machine, its control groups and its Slurm job.

use std::path::Path;

/// Memory in bytes above which the kernel kills the process. `None`: the limit is unknown.
pub fn limit() -> Option<u64> {
    limit_under(Path::new("/"))
}

/// Memory budget in bytes: four fifths of the limit of the process or, if smaller, of its Slurm job.
/// `u64::MAX`: the limit is unknown.
pub fn budget() -> u64 {
    let job_limit = slurm_limit(std::env::var("SLURM_MEM_PER_NODE").ok().as_deref());
    let limit = limit().into_iter().chain(job_limit).min();
    limit.map_or(u64::MAX, |limit| limit / 5 * 4)
}

/// The limit of a Slurm job in bytes, from `SLURM_MEM_PER_NODE` in MiB. 0 means all memory of the node.
fn slurm_limit(mib: Option<&str>) -> Option<u64> {
    mib?.parse::<u64>().ok().filter(|mib| *mib > 0)?.checked_mul(1 << 20)
}

/// The smallest, in bytes, of the memory of the machine and the limits of the control groups of this
/// process (versions 1 and 2). `root` is the root of the file system. `None`: there is no `/proc`.
fn limit_under(root: &Path) -> Option<u64> {
    let meminfo = std::fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let total = meminfo.lines().find_map(|line| {
        let kilobytes = line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?;
        kilobytes.trim().parse::<u64>().ok()?.checked_mul(1024)
    })?;
    let groups = std::fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let limits = groups.lines().flat_map(|line| group_limits(root, line));
    limits.chain([total]).min()
}

/// The limits in bytes of the control group that a line of `/proc/self/cgroup` names, and of its parents.
fn group_limits(root: &Path, line: &str) -> Vec<u64> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else {
        return Vec::new();
    };
    let (mount, file) = match controllers {
        "" => ("sys/fs/cgroup", "memory.max"),
        _ if controllers.split(',').any(|name| name == "memory") => {
            ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
        }
        _ => return Vec::new(),
    };
    let mount = root.join(mount);
    Path::new(group.trim_start_matches('/'))
        .ancestors()
        .filter_map(|group| std::fs::read_to_string(mount.join(group).join(file)).ok())
        .filter_map(|text| text.trim().parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(cgroup: &str, files: &[(&str, &str)]) -> Option<u64> {
        let root = tempfile::tempdir().expect("temporary folder");
        let meminfo = ("proc/meminfo", "MemFree: 1 kB\nMemTotal:       2048 kB\n");
        for (name, text) in files.iter().chain(&[meminfo, ("proc/self/cgroup", cgroup)]) {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().expect("has a parent")).expect("folder");
            std::fs::write(path, text).expect("file");
        }
        limit_under(root.path())
    }

    #[test]
    fn the_machine_is_the_limit_without_control_groups() {
        assert_eq!(limit("0::/\n", &[("sys/fs/cgroup/memory.max", "max\n")]), Some(2 << 20));
    }

    #[test]
    fn the_limit_of_a_slurm_job_is_in_mebibytes() {
        assert_eq!(slurm_limit(Some("2048")), Some(2 << 30));
        assert_eq!(
            [slurm_limit(Some("0")), slurm_limit(Some("all")), slurm_limit(None)],
            [None; 3]
        );
    }

    #[test]
    fn a_parent_group_limits_its_children() {
        let files =
            [("sys/fs/cgroup/a/memory.max", "5000\n"), ("sys/fs/cgroup/a/b/memory.max", "max\n")];
        assert_eq!(limit("0::/a/b\n", &files), Some(5000));
    }

    #[test]
    fn groups_of_version_1_are_limits() {
        let files = [("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "7000\n")];
        assert_eq!(limit("4:cpu,memory:/x\n3:pids:/y\n", &files), Some(7000));
    }
}
