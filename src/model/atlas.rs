//! The variables, bands, years and fill value of the public map stores.

/// Fill value of the map stores, the default of NetCDF; as a double, 9.969209968386869e36.
pub const FILL: f32 = f32::from_bits(0x7cf0_0000);

/// Length of a case in years.
pub const YEARS: usize = 15;

/// A variable of the map pyramid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MapVariable {
    /// Dissolved inorganic carbon in the uppermost layer.
    DicSurf,
    /// Column inventory of dissolved inorganic carbon.
    Dic,
    /// pH at the surface.
    Ph,
    /// Air-sea flux of CO2, positive into the sea.
    Fg,
    /// Partial pressure of CO2 at the surface.
    Pco2Surf,
}

impl MapVariable {
    /// All variables, in the order of the store.
    pub const ALL: [Self; 5] = [Self::DicSurf, Self::Dic, Self::Ph, Self::Fg, Self::Pco2Surf];

    /// Name of the array in the store.
    pub fn name(self) -> &'static str {
        match self {
            Self::DicSurf => "DIC_SURF",
            Self::Dic => "DIC",
            Self::Ph => "PH",
            Self::Fg => "FG",
            Self::Pco2Surf => "pCO2SURF",
        }
    }

    /// The variable of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|variable| variable.name() == name)
    }

    /// Description for titles and the attribute `long_name`.
    pub fn long_name(self) -> &'static str {
        match self {
            Self::DicSurf => "Dissolved inorganic carbon at the surface",
            Self::Dic => "Dissolved inorganic carbon, column inventory",
            Self::Ph => "pH at the surface",
            Self::Fg => "Air-sea CO2 flux, positive into the sea",
            Self::Pco2Surf => "Partial pressure of CO2 at the surface",
        }
    }

    /// Units of the values in the store: those of the model.
    pub fn units(self) -> &'static str {
        match self {
            Self::DicSurf => "mmol/m^3",
            Self::Dic => "mmol/m^2",
            Self::Ph => "1",
            Self::Fg => "mmol/m^3 cm/s",
            Self::Pco2Surf => "ppmv",
        }
    }

    /// Names of the model fields with and without the intervention, in this order.
    pub fn fields(self) -> (&'static str, &'static str) {
        match self {
            Self::DicSurf | Self::Dic => ("DIC", "DIC_ALT_CO2"),
            Self::Ph => ("PH", "PH_ALT_CO2"),
            Self::Fg => ("FG_CO2", "FG_ALT_CO2"),
            Self::Pco2Surf => ("pCO2SURF", "pCO2SURF_ALT_CO2"),
        }
    }
}

impl std::str::FromStr for MapVariable {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let names = || Self::ALL.map(Self::name).join(", ");
        Self::from_name(text).ok_or_else(|| format!("the map has the variables {}", names()))
    }
}

/// The quantity that a map shows of a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Band {
    /// Value with the intervention minus value without.
    Delta,
    /// Value with the intervention.
    Experimental,
}

impl Band {
    /// Both bands, in the order of the store.
    pub const ALL: [Self; 2] = [Self::Delta, Self::Experimental];

    /// Label in the coordinate `band` of the store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Delta => "delta",
            Self::Experimental => "experimental",
        }
    }
}

impl std::str::FromStr for Band {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let band = Self::ALL.into_iter().find(|band| band.name() == text);
        band.ok_or_else(|| "the map has the bands delta and experimental".to_owned())
    }
}
