//! Distribution of cases over shards: case `i` of a plan belongs to shard `i mod N` under every scheduler.

use crate::model::{ErrorKind, WithErrorKind};

/// A share of the cases of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Index of the shard, from 0.
    pub index: usize,
    /// Number of shards.
    pub count: usize,
}

/// The shard of this process cannot be determined.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShardIndexError {
    /// Neither the command line nor the environment has an index.
    #[error(
        "the index of this shard, of {count}, is unknown: give --shard, or run it in a Slurm array, a Kubernetes \
         Indexed Job or an AWS Batch array"
    )]
    Unknown {
        /// Number of shards.
        count: usize,
    },
    /// The index is not below the number of shards.
    #[error("{origin}: there is no shard {index} of {count}; indexes start at 0")]
    Outside {
        /// Option or environment variable with the index.
        origin: String,
        /// The index.
        index: usize,
        /// Number of shards.
        count: usize,
    },
    /// An environment variable has no number.
    #[error("{variable} is {value:?}, which is not a valid shard index")]
    NoNumber {
        /// Name of the environment variable.
        variable: &'static str,
        /// Value of the variable.
        value: String,
    },
}

impl WithErrorKind for ShardIndexError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Unknown { .. } => ErrorKind::Usage,
            Self::Outside { origin, .. } if origin == "--shard" => ErrorKind::Usage,
            Self::Outside { .. } | Self::NoNumber { .. } => ErrorKind::Config,
        }
    }
}

impl Shard {
    /// Environment variables with the index in a Slurm, Kubernetes or AWS Batch array.
    pub const VARIABLES: [&'static str; 3] =
        ["SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX", "AWS_BATCH_JOB_ARRAY_INDEX"];

    /// The shard with the index `given`, else with the index that the environment has. A single shard needs
    /// no index.
    ///
    /// # Errors
    /// No index is known, or it is not that of a shard.
    pub fn find(
        count: usize,
        given: Option<usize>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ShardIndexError> {
        let number = |name: &'static str| match variable(name).filter(|value| !value.is_empty()) {
            None => Ok(None),
            Some(value) => match value.parse::<usize>() {
                Ok(number) => Ok(Some(number)),
                Err(_) => Err(ShardIndexError::NoNumber { variable: name, value }),
            },
        };
        let in_environment = |name: &'static str| match number(name) {
            Ok(found) => found.map(|index| Ok((name, index))),
            Err(error) => Some(Err(error)),
        };
        let found = match given {
            Some(index) => Some(("--shard", index)),
            None => Self::VARIABLES.into_iter().find_map(in_environment).transpose()?,
        };
        let (origin, index) = match found {
            Some((name @ "SLURM_ARRAY_TASK_ID", element)) => {
                // Each task of an array element is a separate shard.
                let tasks = number("SLURM_NTASKS")?.unwrap_or(1);
                let task = number("SLURM_PROCID")?.unwrap_or(0);
                (name, element.saturating_mul(tasks).saturating_add(task))
            }
            Some(found) => found,
            None if count == 1 => ("the only shard", 0),
            None => return Err(ShardIndexError::Unknown { count }),
        };
        match index < count {
            true => Ok(Self { index, count }),
            false => Err(ShardIndexError::Outside { origin: origin.to_owned(), index, count }),
        }
    }

    /// The shard of the `n`-th case of a plan, from 0.
    pub fn of_case(n: usize, count: usize) -> Self {
        Self { index: n % count, count }
    }

    /// Whether the `n`-th case of a plan, from 0, belongs to this shard.
    pub fn has(self, n: usize) -> bool {
        Self::of_case(n, self.count) == self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Case;

    fn found(
        count: usize,
        given: Option<usize>,
        set: &[(&str, &str)],
    ) -> Result<usize, ShardIndexError> {
        let variable =
            |name: &str| set.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        Shard::find(count, given, variable).map(|shard| shard.index)
    }

    #[test]
    fn shards_cover_all_cases_once_and_differ_by_at_most_one_case() {
        let cases = Case::all().count();
        assert_eq!(cases, 2760);
        for count in [1, 7, 32, 690, 2760] {
            let shards: Vec<Shard> = (0..count).map(|index| Shard { index, count }).collect();
            let mut sizes = vec![0_usize; count];
            for case in 0..cases {
                let owners: Vec<&Shard> = shards.iter().filter(|shard| shard.has(case)).collect();
                assert_eq!(owners.len(), 1, "case {case} of {count} shards");
                sizes[owners[0].index] += 1;
            }
            let (least, most) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
            assert!(most - least <= 1 && sizes.iter().sum::<usize>() == cases, "{count}");
        }
    }

    #[test]
    fn the_environment_of_every_engine_has_the_index() {
        let slurm = [("SLURM_ARRAY_TASK_ID", "3"), ("SLURM_NTASKS", "4"), ("SLURM_PROCID", "2")];
        assert_eq!(found(16, None, &slurm), Ok(14));
        assert_eq!(found(16, None, &slurm[..1]), Ok(3));
        assert_eq!(found(16, Some(5), &slurm), Ok(5));
        assert_eq!(found(4, None, &[("JOB_COMPLETION_INDEX", "2")]), Ok(2));
        assert_eq!(found(4, None, &[("AWS_BATCH_JOB_ARRAY_INDEX", "1")]), Ok(1));
        assert_eq!(found(1, None, &[]), Ok(0));
    }

    #[test]
    fn an_unknown_or_invalid_index_is_refused() {
        assert_eq!(found(7, None, &[]), Err(ShardIndexError::Unknown { count: 7 }));
        assert!(matches!(found(4, Some(4), &[]), Err(ShardIndexError::Outside { .. })));
        let slurm = [("SLURM_ARRAY_TASK_ID", "x")];
        assert!(matches!(found(4, None, &slurm), Err(ShardIndexError::NoNumber { .. })));
    }
}
