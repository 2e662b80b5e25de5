//! The header of a synthetic history file, with the dimensions, variables and attributes of the model.

use super::grid::{FILL, Shape};
use super::netcdf3::{AttributeDef, ClassicFormat, FileHeader, NcType, Value, VariableDef};
use super::ocean::{FILL_FLOAT, Quantity};

/// Units of the time and its bounds.
pub const TIME_UNITS: &str = "days since 0000-01-01 00:00:00";

/// Names and values of the model constants, in the order of the file.
pub const CONSTANTS: [(&str, f64); 29] = [
    ("days_in_norm_year", 365.0),
    ("grav", 980.616),
    ("omega", 7.292_123_625e-5),
    ("radius", super::grid::RADIUS),
    ("cp_sw", 3.996e7),
    ("sound", 1.5e5),
    ("vonkar", 0.4),
    ("cp_air", 1004.64),
    ("rho_air", 1.2),
    ("rho_sw", 1.026),
    ("rho_fw", 1.0),
    ("stefan_boltzmann", 5.67e-8),
    ("latent_heat_vapor", 2.501e6),
    ("latent_heat_fusion", 3.337e9),
    ("latent_heat_fusion_mks", 3.337e5),
    ("ocn_ref_salinity", 34.7),
    ("sea_ice_salinity", 4.0),
    ("T0_Kelvin", 273.15),
    ("salt_to_ppt", 1000.0),
    ("ppt_to_salt", 1e-3),
    ("mass_to_Sv", 1e-12),
    ("heat_to_PW", 4.186e-15),
    ("salt_to_Svppt", 1e-9),
    ("salt_to_mmday", 3.1536e5),
    ("momentum_factor", 10.0),
    ("hflux_factor", 2.439e-5),
    ("fwflux_factor", 1e-4),
    ("salinity_factor", -3.47e-3),
    ("sflux_factor", 0.1),
];

/// A field: name, units, quantity, and whether it includes the effect of the intervention.
pub type FieldDef = (&'static str, &'static str, Quantity, bool);

/// The three-dimensional fields, in the order of the file.
pub const FIELDS_3D: [FieldDef; 13] = [
    ("DIC_ALT_CO2", "mmol/m^3", Quantity::Dic, false),
    ("DIC", "mmol/m^3", Quantity::Dic, true),
    ("ALK", "mmol/m^3", Quantity::Alk, true),
    ("ALK_ALT_CO2", "mmol/m^3", Quantity::Alk, false),
    ("CO3", "mmol/m^3", Quantity::Co3, true),
    ("CO3_ALT_CO2", "mmol/m^3", Quantity::Co3, false),
    ("HCO3", "mmol/m^3", Quantity::Hco3, true),
    ("H2CO3", "mmol/m^3", Quantity::H2co3, true),
    ("pH_3D", "1", Quantity::Ph, true),
    ("pH_3D_ALT_CO2", "1", Quantity::Ph, false),
    ("co3_sat_arag", "mmol/m^3", Quantity::Aragonite, true),
    ("co3_sat_calc", "mmol/m^3", Quantity::Calcite, true),
    ("IAGE", "years", Quantity::Age, true),
];

/// The two-dimensional fields, in the order of the file.
pub const FIELDS_2D: [FieldDef; 8] = [
    ("PH_ALT_CO2", "1", Quantity::Ph, false),
    ("PH", "1", Quantity::Ph, true),
    ("pCO2SURF_ALT_CO2", "ppmv", Quantity::Pco2, false),
    ("pCO2SURF", "ppmv", Quantity::Pco2, true),
    ("FG_ALT_CO2", "mmol/m^3 cm/s", Quantity::Flux, false),
    ("FG_CO2", "mmol/m^3 cm/s", Quantity::Flux, true),
    ("DIC_FLUX", "mmol/m^3 cm/s", Quantity::DicFlux, true),
    ("ALK_FLUX", "mmol/m^3 cm/s", Quantity::AlkFlux, true),
];

/// Fields of the grid: name, long name, units, and the points on which they are defined: `U`, `T`, or
/// empty for the coordinates themselves.
const GRID_FIELDS: [(&str, &str, &str, &str); 21] = [
    ("ULONG", "array of u-grid longitudes", "degrees_east", ""),
    ("ULAT", "array of u-grid latitudes", "degrees_north", ""),
    ("TLONG", "array of t-grid longitudes", "degrees_east", ""),
    ("TLAT", "array of t-grid latitudes", "degrees_north", ""),
    ("KMT", "KMT", "", "T"),
    ("KMU", "KMU", "", "U"),
    ("REGION_MASK", "REGION_MASK", "", "T"),
    ("UAREA", "UAREA", "centimeter^2", "U"),
    ("TAREA", "TAREA", "centimeter^2", "T"),
    ("HU", "HU", "centimeter", "U"),
    ("HT", "HT", "centimeter", "T"),
    ("DXU", "DXU", "centimeters", "U"),
    ("DYU", "DYU", "centimeters", "U"),
    ("DXT", "DXT", "centimeters", "T"),
    ("DYT", "DYT", "centimeters", "T"),
    ("HTN", "HTN", "centimeters", "T"),
    ("HTE", "HTE", "centimeters", "T"),
    ("HUS", "HUS", "centimeters", "T"),
    ("HUW", "HUW", "centimeters", "T"),
    ("ANGLE", "ANGLE", "radians", "U"),
    ("ANGLET", "ANGLET", "radians", "T"),
];

// Indexes of the dimensions.
const D2: usize = 0;
const TIME: usize = 1;
const Z_T: usize = 2;
const Z_T_150M: usize = 3;
const Z_W: usize = 4;
const Z_W_TOP: usize = 5;
const Z_W_BOT: usize = 6;
const NLAT: usize = 7;
const NLON: usize = 8;

/// Creates a text attribute.
pub fn text(name: &str, value: &str) -> AttributeDef {
    (name.to_owned(), Value::Text(value.to_owned()))
}

/// Creates a variable; `dims` are indexes of dimensions.
pub fn variable(
    name: &str,
    kind: NcType,
    dims: &[usize],
    attributes: Vec<AttributeDef>,
) -> VariableDef {
    VariableDef { name: name.to_owned(), kind, dimensions: dims.to_vec(), attributes }
}

/// Creates the header of a monthly file of the run `title`, with the first `fields_3d` fields of
/// [`FIELDS_3D`].
pub fn history(
    format: ClassicFormat,
    shape: Shape,
    dz: &[f64],
    title: &str,
    fields_3d: usize,
) -> FileHeader {
    let shallow = shape.nz.min(15);
    let length = |name: &str, n: usize| (name.to_owned(), Some(n as u64));
    let dimensions = vec![
        length("d2", 2),
        ("time".to_owned(), None),
        length("z_t", shape.nz),
        length("z_t_150m", shallow),
        length("z_w", shape.nz),
        length("z_w_top", shape.nz),
        length("z_w_bot", shape.nz),
        length("nlat", shape.nlat),
        length("nlon", shape.nlon),
    ];
    let mut variables = time_variables();
    variables.extend(vertical_variables(dz, shallow));
    variables.extend(GRID_FIELDS.map(grid_variable));
    let long = |name: &str| vec![text("long_name", name)];
    let names = CONSTANTS.map(|(name, _)| name).into_iter().chain(["nsurface_t", "nsurface_u"]);
    variables.extend(names.map(|name| variable(name, NcType::Double, &[], long(name))));
    let deep = FIELDS_3D.iter().take(fields_3d);
    variables
        .extend(deep.map(|f| field(f, &[TIME, Z_T, NLAT, NLON], "TLONG TLAT z_t time", "3111")));
    variables
        .extend(FIELDS_2D.iter().map(|f| field(f, &[TIME, NLAT, NLON], "TLONG TLAT time", "2110")));
    FileHeader { format, dimensions, records: 1, attributes: global_attributes(title), variables }
}

fn time_variables() -> Vec<VariableDef> {
    let bounds = vec![
        text("long_name", "boundaries for time-averaging interval"),
        text("units", TIME_UNITS),
    ];
    let time = vec![
        text("long_name", "time"),
        text("units", TIME_UNITS),
        text("bounds", "time_bound"),
        text("calendar", "noleap"),
    ];
    vec![
        variable("time_bound", NcType::Double, &[TIME, D2], bounds),
        variable("time", NcType::Double, &[TIME], time),
    ]
}

fn vertical_variables(dz: &[f64], shallow: usize) -> Vec<VariableDef> {
    let total: f64 = dz.iter().sum();
    let first = dz.first().copied().unwrap_or(0.0);
    let last = dz.last().copied().unwrap_or(0.0);
    let shallow_middle = dz.iter().take(shallow).sum::<f64>()
        - dz.get(shallow.saturating_sub(1)).copied().unwrap_or(0.0) / 2.0;
    let axis = |name: &str, dimension, long_name: &str, min: f64, max: f64| {
        let attributes = vec![
            text("long_name", long_name),
            text("units", "centimeters"),
            text("positive", "down"),
            ("valid_min".to_owned(), Value::Float(min as f32)),
            ("valid_max".to_owned(), Value::Float(max as f32)),
        ];
        variable(name, NcType::Float, &[dimension], attributes)
    };
    let size = |name: &str, dimension, long_name: &str| {
        let attributes = vec![text("long_name", long_name), text("units", "centimeters")];
        variable(name, NcType::Float, &[dimension], attributes)
    };
    let middle = "depth from surface to midpoint of layer";
    let top = "depth from surface to top of layer";
    let bottom = "depth from surface to bottom of layer";
    vec![
        axis("z_t", Z_T, middle, first / 2.0, total - last / 2.0),
        axis("z_t_150m", Z_T_150M, middle, first / 2.0, shallow_middle),
        axis("z_w", Z_W, top, 0.0, total - last),
        axis("z_w_top", Z_W_TOP, top, 0.0, total - last),
        axis("z_w_bot", Z_W_BOT, bottom, first, total),
        size("dz", Z_T, "thickness of layer k"),
        size("dzw", Z_W, "midpoint of k to midpoint of k+1"),
    ]
}

fn grid_variable((name, long_name, units, points): (&str, &str, &str, &str)) -> VariableDef {
    let fill = |name: &str| (name.to_owned(), Value::Double(FILL));
    let mut attributes = vec![fill("_FillValue"), text("long_name", long_name)];
    if !units.is_empty() {
        attributes.push(text("units", units));
    }
    if !points.is_empty() {
        attributes.push(text("coordinates", &format!("{points}LONG {points}LAT")));
    }
    attributes.push(fill("missing_value"));
    variable(name, NcType::Double, &[NLAT, NLON], attributes)
}

fn field(field: &FieldDef, dimensions: &[usize], coordinates: &str, grid_loc: &str) -> VariableDef {
    let (name, units, ..) = *field;
    let fill = |name: &str| (name.to_owned(), Value::Float(FILL_FLOAT));
    let attributes = vec![
        fill("_FillValue"),
        text("long_name", name),
        text("units", units),
        text("coordinates", coordinates),
        text("grid_loc", grid_loc),
        text("cell_methods", "time: mean"),
        fill("missing_value"),
    ];
    variable(name, NcType::Float, dimensions, attributes)
}

fn global_attributes(title: &str) -> Vec<AttributeDef> {
    vec![
        text("title", title),
        text("history", "none"),
        text("Conventions", "CF-1.0; http://www.cgd.ucar.edu/cms/eaton/netcdf/CF-current.htm"),
        text("time_period_freq", "month_1"),
        text("model_doi_url", "https://doi.org/10.5065/D67H1H0V"),
        text("contents", "Diagnostic and Prognostic Variables"),
        text("source", "CCSM POP2, the CCSM Ocean Component"),
        text("revision", "$Id$"),
        text("calendar", "All years have exactly  365 days."),
        text("start_time", "This dataset was created on 2024-05-01 at 00:00:00.0"),
        text(
            "cell_methods",
            "cell_methods = time: mean ==> the variable values are averaged over the time interval",
        ),
    ]
}
