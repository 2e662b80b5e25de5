//! Generates complete synthetic cases in the exact format of the raw model history, for the demo, the
//! tests and the benchmarks.
//!
//! The name of a case, a [`Shape`] and a seed determine all bytes. The ocean is plausible: it has a
//! displaced-pole grid, continents, a carbonate system with seasons and eddies, and an intervention
//! that conserves carbon. No model output is used.

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

/// First month of the series of sea surface height.
const SSH_START: YearMonth = YearMonth { year: 306, month: 1 };
/// Number of months of the series of sea surface height.
const SSH_MONTHS: u64 = 63 * 12;

/// A synthetic case, which writes its monthly files on request.
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
    /// Creates a case on a grid of this shape, with CDF-2 files.
    ///
    /// With 60 levels the files have the model's 13 three-dimensional fields, otherwise only the 4
    /// fields of DIC and alkalinity. The lengths of a shape must not be 0.
    pub fn new(case: Case, shape: Shape, seed: u64) -> Self {
        let grid = SyntheticGrid::new(shape);
        let ocean = Ocean::new(&grid, seed);
        let center = centers::CENTERS.get(usize::from(case.polygon())).copied();
        let days = f64::from(case.first_month().days());
        let plume = Plume::new(&grid, center.unwrap_or_default(), days);
        let fields_3d = if shape.nz == 60 { FIELDS_3D.len() } else { 4 };
        Self { case, seed, format: ClassicFormat::Cdf2, fields_3d, grid, ocean, plume }
    }

    /// Sets the format of the files.
    #[must_use]
    pub fn with_format(self, format: ClassicFormat) -> Self {
        Self { format, ..self }
    }

    /// Sets the number of three-dimensional fields, at most 13.
    #[must_use]
    pub fn with_3d_fields(self, count: usize) -> Self {
        Self { fields_3d: count.min(FIELDS_3D.len()), ..self }
    }

    /// The options of `dor demo` that give the same values for any case.
    pub fn options(&self) -> String {
        let Shape { nlat, nlon, nz } = self.grid.shape;
        let (seed, fields) = (self.seed, self.fields_3d);
        let format = match self.format {
            ClassicFormat::Cdf1 => "cdf1",
            ClassicFormat::Cdf2 => "cdf2",
            ClassicFormat::Cdf5 => "cdf5",
        };
        format!("--shape {nlat}x{nlon}x{nz} --seed {seed} --fields {fields} --format {format}")
    }

    /// Name of the file of a month.
    pub fn file_name(&self, month: YearMonth) -> String {
        format!("{}.pop.h.{month}.nc", self.case)
    }

    /// Size of a monthly file in bytes; all months have the same size.
    pub fn file_size(&self) -> u64 {
        self.header().file_size()
    }

    /// Header of a monthly file, the same for all months. [`Self::write_month_as`] writes a file with
    /// a modified header.
    pub fn header(&self) -> FileHeader {
        let title = self.case.to_string();
        header::history(self.format, self.grid.shape, &self.grid.dz, &title, self.fields_3d)
    }

    /// Writes the file of a month; keeps one field and a few horizontal fields in memory.
    ///
    /// # Errors
    /// `out` cannot be written, or the file is too large for its format.
    pub fn write_month<W: Write>(&self, month: YearMonth, out: &mut W) -> io::Result<()> {
        self.write_month_as(&self.header(), month, out)
    }

    /// Writes the file of a month with another header, to create unusual files: unknown variables
    /// are 0, and every variable has the shape in the header.
    ///
    /// # Errors
    /// As for [`Self::write_month`].
    pub fn write_month_as<W: Write>(
        &self,
        header: &FileHeader,
        month: YearMonth,
        out: &mut W,
    ) -> io::Result<()> {
        let elapsed = month.months_since(self.case.first_month());
        let plume = self.plume.month(&self.grid, elapsed, f64::from(month.days()));
        let sea = self.ocean.month(&self.grid, month, plume);
        header.write(out, |variable, record, out| self.fill(&sea, month, variable, record, out))
    }

    /// The bytes of a grid file with `TLAT` and `TLONG` at all points, including land blocks.
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
        let fill = |variable: &VariableDef, _, out: &mut [u8]| {
            let values = if variable.name == "TLAT" { &self.grid.tlat } else { &self.grid.tlong };
            put_doubles(out, values.iter().copied());
        };
        // Cannot fail: the grid fits into memory, and writing to a Vec always succeeds.
        header.write(&mut bytes, fill).unwrap_or_default();
        bytes
    }

    /// Size in bytes of the file of [`Self::write_ssh`].
    pub fn ssh_size(&self) -> u64 {
        self.ssh_header().file_size()
    }

    /// Writes the sea surface height of the reference run for the months 0306-01 to 0368-12; the time
    /// of a month is its end.
    ///
    /// # Errors
    /// `out` cannot be written, or the file is too large for its format.
    pub fn write_ssh<W: Write>(&self, out: &mut W) -> io::Result<()> {
        let cells = 0..self.grid.cells();
        let gyres = Waves::new(key(&[self.seed, 21]).into(), 16, 3.0, 40.0);
        let gyres: Vec<f32> =
            cells.clone().map(|n| gyres.at(self.grid.tlong[n], self.grid.tlat[n]) as f32).collect();
        self.ssh_header().write(out, |variable, record, out| {
            let month = SSH_START.plus(record as i32);
            match variable.name.as_str() {
                "time" | "time_bound" => fill_time(month, variable, out),
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
                    put_floats(out, cells.clone().map(height));
                }
            }
        })
    }

    /// The centers of all 690 polygons as a table with the columns `polygon_id,lon,lat`.
    pub fn centers_csv(&self) -> String {
        let mut csv = "polygon_id,lon,lat\n".to_owned();
        for (polygon, (lon, lat)) in centers::CENTERS.iter().enumerate() {
            // Writing to a String cannot fail.
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

    fn fill(&self, sea: &Sea<'_>, first: YearMonth, v: &VariableDef, record: u64, out: &mut [u8]) {
        let name = v.name.as_str();
        let known = |&&(known, ..): &&header::FieldDef| known == name;
        if let Some(&(_, _, quantity, altered)) = FIELDS_3D.iter().chain(&FIELDS_2D).find(known) {
            sea.fill(quantity, altered, out);
        } else if let Some((_, constant)) = CONSTANTS.iter().find(|(known, _)| *known == name) {
            put_doubles(out, [*constant]);
        } else if matches!(name, "time" | "time_bound") {
            fill_time(first.plus(record as i32), v, out);
        } else if v.dimensions.len() == 2 {
            self.fill_grid(name, out);
        } else {
            self.fill_vertical(name, out);
        }
    }

    fn fill_grid(&self, name: &str, out: &mut [u8]) {
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
        put_doubles(out, (0..grid.cells()).map(value));
    }

    fn fill_vertical(&self, name: &str, out: &mut [u8]) {
        let grid = &self.grid;
        let (middles, wet_cells) = (grid.middles(), |u: bool| {
            let is_wet = |&n: &usize| (if u { grid.kmu(n) } else { grid.kmt[n] }) > 0;
            (0..grid.cells()).filter(is_wet).count() as f64
        });
        let bottom = |k: usize| grid.bottom(k as u8);
        let levels = 0..grid.shape.nz;
        let mut floats =
            |f: &dyn Fn(usize) -> f64| put_floats(out, levels.clone().map(|k| f(k) as f32));
        match name {
            "z_t" | "z_t_150m" => floats(&|k| middles[k]),
            "z_w" | "z_w_top" => floats(&bottom),
            "z_w_bot" => floats(&|k| bottom(k + 1)),
            "dz" => floats(&|k| grid.dz[k]),
            "dzw" => floats(&|k| middles[k] - k.checked_sub(1).map_or(0.0, |above| middles[above])),
            "nsurface_t" => put_doubles(out, [wet_cells(false)]),
            "nsurface_u" => put_doubles(out, [wet_cells(true)]),
            _ => {}
        }
    }
}

/// Fills `time` with the end of a month, or `time_bound` with its start and end.
fn fill_time(month: YearMonth, variable: &VariableDef, out: &mut [u8]) {
    let (start, end) = (month.first_day() as f64, month.plus(1).first_day() as f64);
    match variable.name.as_str() {
        "time" => put_doubles(out, [end]),
        _ => put_doubles(out, [start, end]),
    }
}
