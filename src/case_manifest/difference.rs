//! Settings in which a case manifest differs from a run.

use chrono::{DateTime, SecondsFormat, Utc};

use super::InputRecord;
use crate::store::ObjectMeta;

use std::fmt;

/// A setting whose value in a record differs from that of this run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingDifference {
    /// Name of the setting, such as `grid`.
    pub setting: &'static str,
    /// Description of the value in the record.
    pub recorded: String,
    /// Description of the value in this run.
    pub now: String,
}

impl SettingDifference {
    /// The difference between two SHA-256 of grid files. `None`: they are equal, or the record has none.
    pub fn of_grid(recorded: Option<&str>, now: Option<&str>) -> Option<Self> {
        let before = recorded.filter(|before| now != Some(*before))?;
        let now = match now {
            Some(now) => format!("the grid file of --grid (SHA-256 {})", first_digits(now)),
            None => "none (--grid is not given)".to_owned(),
        };
        let recorded = format!("another grid file (SHA-256 {})", first_digits(before));
        Some(Self { setting: "grid", recorded, now })
    }

    /// The difference between the recorded version of an input and `info`, the object in the store now with other
    /// content. `None`: the object in the store is not older.
    pub fn of_older_input(recorded: &InputRecord, info: &ObjectMeta) -> Option<Self> {
        let time: DateTime<Utc> = recorded.modified.parse().ok()?;
        let text = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Secs, true);
        (time > info.modified).then(|| Self {
            setting: "input file",
            recorded: format!("{} of {}", recorded.key, text(time)),
            now: format!("an older one with other content, of {}", text(info.modified)),
        })
    }

    /// The difference between two model grids, by the number of their points `[nlat, nlon]`. `None`: they
    /// are equal.
    pub fn of_shape(recorded: [usize; 2], now: [usize; 2]) -> Option<Self> {
        let [was, is] = [recorded, now].map(shape_text);
        (recorded != now).then_some(Self { setting: "model grid", recorded: was, now: is })
    }
}

/// A number of points of the model grid, `[nlat, nlon]`, for messages.
pub fn shape_text([nlat, nlon]: [usize; 2]) -> String {
    format!("{nlat} x {nlon} points")
}

/// The first 12 digits of a checksum, for messages.
pub fn first_digits(sha256: &str) -> String {
    const SHOWN: usize = 12;
    sha256.chars().filter(char::is_ascii_hexdigit).take(SHOWN).chain(['…']).collect()
}

impl fmt::Display for SettingDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { setting, recorded, now } = self;
        write!(f, "{setting}: the case manifest has {recorded}, this run has {now}")
    }
}
