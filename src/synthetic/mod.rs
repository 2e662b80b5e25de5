//! Synthetic but complete cases in the exact form of the raw model history: for the demo, the tests
//! and the benchmarks.
//!
//! A case is known by its name, its [`Shape`] and a seed; the same three give the same bytes. The sea
//! is plausible (a displaced-pole grid, continents, a carbonate system with seasons and eddies, an
//! intervention whose carbon adds up) and none of it comes from model output.

mod centers;
mod grid;
mod header;
mod land;
pub mod netcdf3;
mod noise;
mod ocean;
mod plume;

use std::fmt::Write as _;
use std::io::{self, Write};

pub use self::grid::Shape;
use self::grid::{FILL, SyntheticGrid, TURN};
use self::header::{CONSTANTS, FIELDS_2D, FIELDS_3D, TIME_UNITS, text, variable};
pub use self::netcdf3::ClassicFormat;
use self::netcdf3::{FileHeader, NcType, Value, VariableDef, put_doubles, put_floats};
use self::noise::{Waves, key, uniform};
use self::ocean::{FILL_FLOAT, Ocean, Sea};
use self::plume::Plume;
use crate::model::{Case, YearMonth};

/// First month of the series of sea surface height, and the number of its months.
const SSH_START: YearMonth = YearMonth { year: 306, month: 1 };
const SSH_MONTHS: u64 = 63 * 12;

/// A case that can be written month by month.
///
/// ```
/// use dor_atlas::synthetic::{Shape, SyntheticCase};
///
/// let synthetic = SyntheticCase::new("112-04".parse()?, Shape { nlat: 8, nlon: 9, nz: 3 }, 1);
/// let mut file = Vec::new();
/// synthetic.write_month("0347-04".parse()?, &mut file)?;
/// assert_eq!(file.len() as u64, synthetic.file_size());
/// assert!(file.starts_with(b"CDF\x02"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SyntheticCase {
    case: Case,
    seed: u64,
    format: ClassicFormat,
    fields_3d: usize,
    grid: SyntheticGrid,
    ocean: Ocean,
    plume: Plume,
}

impl SyntheticCase {
    /// The case on a grid of this shape, as CDF-2 files with the model's 13 three-dimensional fields
    /// on 60 levels and with the 4 of DIC and alkalinity on any other number.
    ///
    /// Lengths of a shape must not be 0.
    pub fn new(case: Case, shape: Shape, seed: u64) -> Self {
        let grid = SyntheticGrid::new(shape);
        let ocean = Ocean::new(&grid, seed);
        let center = centers::CENTERS.get(usize::from(case.polygon())).copied();
        let days = f64::from(case.first_month().days());
        let plume = Plume::new(&grid, center.unwrap_or_default(), days);
        let fields_3d = if shape.nz == 60 { FIELDS_3D.len() } else { 4 };
        Self { case, seed, format: ClassicFormat::Cdf2, fields_3d, grid, ocean, plume }
    }

    /// The same case in another format.
    #[must_use]
    pub fn with_format(self, format: ClassicFormat) -> Self {
        Self { format, ..self }
    }

    /// The same case with the first `count` (at most 13) three-dimensional fields.
    #[must_use]
    pub fn with_3d_fields(self, count: usize) -> Self {
        Self { fields_3d: count.min(FIELDS_3D.len()), ..self }
    }

    /// Name of the file of a month.
    pub fn file_name(&self, month: YearMonth) -> String {
        format!("{}.pop.h.{month}.nc", self.case)
    }

    /// Size in bytes of the file of any month.
    pub fn file_size(&self) -> u64 {
        self.header().file_size()
    }

    /// Header of the file of any month; a changed one can be written with
    /// [`write_month_as`](Self::write_month_as).
    pub fn header(&self) -> FileHeader {
        let title = self.case.to_string();
        header::history(self.format, self.grid.shape, &self.grid.dz, &title, self.fields_3d)
    }

    /// Writes the file of a month; memory holds one field and a few maps.
    pub fn write_month<W: Write>(&self, month: YearMonth, out: &mut W) -> io::Result<()> {
        self.write_month_as(&self.header(), month, out)
    }

    /// Writes the file of a month under another header, to make odd files: variables that the
    /// model does not know are 0, and a variable is as long as the header says.
    pub fn write_month_as<W: Write>(
        &self,
        header: &FileHeader,
        month: YearMonth,
        out: &mut W,
    ) -> io::Result<()> {
        let elapsed = month.months_since(self.case.first_month());
        let plume = self.plume.month(&self.grid, elapsed, f64::from(month.days()));
        let sea = self.ocean.month(&self.grid, month, plume);
        header.write(out, |variable, record, room| self.fill(&sea, month, variable, record, room))
    }

    /// The grid file: TLAT and TLONG everywhere, land blocks included.
    pub fn grid_file(&self) -> Vec<u8> {
        let shape = self.grid.shape;
        let coordinate = |name: &str, units: &str| {
            variable(name, NcType::Double, &[0, 1], vec![text("units", units)])
        };
        let header = FileHeader {
            format: self.format,
            dimensions: vec![
                ("nlat".to_owned(), Some(shape.nlat as u64)),
                ("nlon".to_owned(), Some(shape.nlon as u64)),
            ],
            records: 0,
            attributes: Vec::new(),
            variables: vec![
                coordinate("TLAT", "degrees_north"),
                coordinate("TLONG", "degrees_east"),
            ],
        };
        let mut bytes = Vec::new();
        let fill = |variable: &VariableDef, _, room: &mut [u8]| {
            let values = if variable.name == "TLAT" { &self.grid.tlat } else { &self.grid.tlong };
            put_doubles(room, values.iter().copied());
        };
        // Neither a grid of memory's size nor a Vec can fail to be written.
        header.write(&mut bytes, fill).unwrap_or_default();
        bytes
    }

    /// Size in bytes of the series that [`write_ssh`](Self::write_ssh) writes.
    pub fn ssh_size(&self) -> u64 {
        self.ssh_header().file_size()
    }

    /// Writes the reference run's sea surface height: months 0306-01 to 0368-12, stamped with
    /// their ends.
    pub fn write_ssh<W: Write>(&self, out: &mut W) -> io::Result<()> {
        let cells = 0..self.grid.cells();
        let gyres = Waves::new(key(&[self.seed, 21]).into(), 16, 3.0, 40.0);
        let gyres: Vec<f32> =
            cells.clone().map(|n| gyres.at(self.grid.tlong[n], self.grid.tlat[n]) as f32).collect();
        self.ssh_header().write(out, |variable, record, room| {
            let month = SSH_START.plus(record as i32);
            match variable.name.as_str() {
                "time" | "time_bound" => fill_time(month, variable, room),
                _ => {
                    let season = ((f64::from(month.month) - 8.5) / 12.0 * TURN).cos() as f32;
                    let key = key(&[self.seed, 22, record]);
                    let height = |n: usize| {
                        if self.grid.kmt[n] == 0 {
                            return FILL_FLOAT;
                        }
                        let sine = self.grid.tlat[n].to_radians().sin() as f32;
                        let tropics = 85.0 * (1.0 - sine * sine);
                        let noise = 0.2 * uniform(key.wrapping_add(n as u32));
                        -210.0 + tropics + 5.0 * sine * season + 12.0 * gyres[n] + noise
                    };
                    put_floats(room, cells.clone().map(height));
                }
            }
        })
    }

    /// Centres of all 690 polygons as `polygon_id,lon,lat`.
    pub fn centers_csv(&self) -> String {
        let mut csv = "polygon_id,lon,lat\n".to_owned();
        for (polygon, (lon, lat)) in centers::CENTERS.iter().enumerate() {
            // Writing into a String does not fail.
            let _ = writeln!(csv, "{polygon},{lon},{lat}");
        }
        csv
    }

    fn ssh_header(&self) -> FileHeader {
        let shape = self.grid.shape;
        let time = vec![
            text("units", TIME_UNITS),
            text("calendar", "noleap"),
            text("bounds", "time_bound"),
        ];
        let ssh = vec![
            ("_FillValue".to_owned(), Value::Float(FILL_FLOAT)),
            text("units", "centimeter"),
            text("long_name", "Sea Surface Height"),
        ];
        FileHeader {
            format: self.format,
            dimensions: vec![
                ("d2".to_owned(), Some(2)),
                ("time".to_owned(), None),
                ("nlat".to_owned(), Some(shape.nlat as u64)),
                ("nlon".to_owned(), Some(shape.nlon as u64)),
            ],
            records: SSH_MONTHS,
            attributes: Vec::new(),
            variables: vec![
                variable("time", NcType::Double, &[1], time),
                variable("time_bound", NcType::Double, &[1, 0], Vec::new()),
                variable("SSH", NcType::Float, &[1, 2, 3], ssh),
            ],
        }
    }

    fn fill(&self, sea: &Sea<'_>, first: YearMonth, v: &VariableDef, record: u64, room: &mut [u8]) {
        let name = v.name.as_str();
        let known = |&&(known, ..): &&header::FieldDef| known == name;
        if let Some(&(_, _, quantity, altered)) = FIELDS_3D.iter().chain(&FIELDS_2D).find(known) {
            sea.fill(quantity, altered, room);
        } else if let Some((_, constant)) = CONSTANTS.iter().find(|(known, _)| *known == name) {
            put_doubles(room, [*constant]);
        } else if matches!(name, "time" | "time_bound") {
            fill_time(first.plus(record as i32), v, room);
        } else if v.dimensions.len() == 2 {
            self.fill_grid(name, room);
        } else {
            self.fill_vertical(name, room);
        }
    }

    fn fill_grid(&self, name: &str, room: &mut [u8]) {
        let grid = &self.grid;
        let value = |n: usize| match name {
            "ULONG" => grid.ulong[n],
            "ULAT" => grid.ulat[n],
            "TLONG" => grid.tlong[n],
            "TLAT" => grid.tlat[n],
            "KMT" => f64::from(grid.kmt[n]),
            "KMU" => f64::from(grid.kmu(n)),
            "REGION_MASK" => f64::from(grid.region[n]),
            "UAREA" => grid.dxu(n) * grid.dyu(n),
            "TAREA" => grid.tarea(n),
            "HU" => grid.bottom(grid.kmu(n)),
            "HT" => grid.bottom(grid.kmt[n]),
            "DXU" => grid.dxu(n),
            "DYU" => grid.dyu(n),
            "DXT" => grid.dxt(n),
            "DYT" => grid.dyt(n),
            "HTN" => grid.sides[0][n],
            "HTE" => grid.sides[1][n],
            "HUS" => grid.sides[2][n],
            "HUW" => grid.sides[3][n],
            "ANGLE" => grid.angles[0][n],
            "ANGLET" => grid.angles[1][n],
            _ => 0.0,
        };
        let value = |n: usize| if grid.eliminated[n] { FILL } else { value(n) };
        put_doubles(room, (0..grid.cells()).map(value));
    }

    fn fill_vertical(&self, name: &str, room: &mut [u8]) {
        let grid = &self.grid;
        let (middles, wet) = (grid.middles(), |u: bool| {
            let one = |&n: &usize| (if u { grid.kmu(n) } else { grid.kmt[n] }) > 0;
            (0..grid.cells()).filter(one).count() as f64
        });
        let bottom = |k: usize| grid.bottom(k as u8);
        let levels = 0..grid.shape.nz;
        let mut floats =
            |f: &dyn Fn(usize) -> f64| put_floats(room, levels.clone().map(|k| f(k) as f32));
        match name {
            "z_t" | "z_t_150m" => floats(&|k| middles[k]),
            "z_w" | "z_w_top" => floats(&bottom),
            "z_w_bot" => floats(&|k| bottom(k + 1)),
            "dz" => floats(&|k| grid.dz[k]),
            "dzw" => floats(&|k| middles[k] - k.checked_sub(1).map_or(0.0, |above| middles[above])),
            "nsurface_t" => put_doubles(room, [wet(false)]),
            "nsurface_u" => put_doubles(room, [wet(true)]),
            _ => {}
        }
    }
}

/// The end of a month as `time`, both its ends as `time_bound`.
fn fill_time(month: YearMonth, variable: &VariableDef, room: &mut [u8]) {
    let (start, end) = (month.first_day() as f64, month.plus(1).first_day() as f64);
    match variable.name.as_str() {
        "time" => put_doubles(room, [end]),
        _ => put_doubles(room, [start, end]),
    }
}
