//! Research-grade files compared with the output of the reference workflow: docs/parity.md lists every
//! difference.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::Path;

use netcdf::types::{FloatType, IntType, NcVariableType};
use tempfile::TempDir;

use super::support::dor::dor;
use super::support::netcdf::{Contents, Variable, contents};
use super::support::shared::{shared, unpacked};

/// Name of a variable, or `(file)`, and the aspect that differs.
type Difference = (String, String);
/// A row of the table: patterns of names and of aspects.
type Row = (Vec<String>, Vec<String>);

/// A folder with the mini case, its expected files, and its conversion in `out`.
fn convert_mini_case(data: &Path) -> TempDir {
    let folder = unpacked(data);
    let mut command = dor(folder.path());
    command.args(["research-data", "process-case", "112-04", "-d", "mini-case/archive"]);
    command.args(["-o", "out", "--grid", "mini-case/grid.nc"]).assert().success();
    folder
}

/// Rows of the table of docs/parity.md.
fn documented_rows() -> Vec<Row> {
    let text = include_str!("../../docs/parity.md");
    let row = |line: &str| {
        let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
        let mut patterns = || {
            let cell = cells.next()?.strip_prefix('`')?.strip_suffix('`')?;
            Some(cell.split_whitespace().map(str::to_owned).collect())
        };
        Some((patterns()?, patterns()?))
    };
    text.lines().filter_map(row).collect()
}

/// Whether a shell pattern with `*` and `[a-z]` matches.
fn matches(pattern: &str, text: &str) -> bool {
    let Some(first) = pattern.chars().next() else { return text.is_empty() };
    let mut remaining = text.chars();
    match first {
        '*' => {
            let tail = &pattern[1..];
            (0..=text.len()).any(|at| text.get(at..).is_some_and(|text| matches(tail, text)))
        }
        '[' => {
            let (set, tail) = pattern[1..].split_once(']').unwrap();
            let ranges: Vec<char> = set.chars().collect();
            let inside = |c: char| match ranges.as_slice() {
                [from, '-', to, more @ ..] => {
                    (*from..=*to).contains(&c)
                        || matches!(more, [from, '-', to] if (*from..=*to).contains(&c))
                }
                listed => listed.contains(&c),
            };
            remaining.next().is_some_and(inside) && matches(tail, remaining.as_str())
        }
        _ => {
            remaining.next() == Some(first)
                && matches(&pattern[first.len_utf8()..], remaining.as_str())
        }
    }
}

fn covers((names, aspects): &Row, (name, aspect): &Difference) -> bool {
    names.iter().any(|p| matches(p, name)) && aspects.iter().any(|p| matches(p, aspect))
}

/// Values as doubles, which hold both types that occur exactly.
fn numbers(variable: &Variable) -> Vec<f64> {
    let words = variable.bytes.as_chunks::<8>().0.iter();
    match variable.dtype {
        NcVariableType::Float(FloatType::F64) => words.map(|b| f64::from_ne_bytes(*b)).collect(),
        NcVariableType::Int(IntType::I64) => words.map(|b| i64::from_ne_bytes(*b) as f64).collect(),
        ref other => panic!("{other:?} is not expected where the types differ"),
    }
}

/// Keys whose values differ or that only one side has. NaN equals NaN.
fn unequal<V: Debug>(left: &[(String, V)], right: &[(String, V)]) -> BTreeSet<String> {
    let text = |side: &[(String, V)], key: &str| {
        side.iter().find(|(k, _)| k == key).map(|(_, value)| format!("{value:?}"))
    };
    let keys = left.iter().chain(right).map(|(key, _)| key.clone());
    keys.filter(|key| text(left, key) != text(right, key)).collect()
}

fn differences(theirs: &Contents, ours: &Contents) -> BTreeSet<Difference> {
    let mut found = BTreeSet::new();
    let mut add = |name: &str, aspect: String| found.insert((name.to_owned(), aspect));
    for attribute in unequal(&theirs.attributes, &ours.attributes) {
        add("(file)", format!("attribute:{attribute}"));
    }
    let sizes = |side: &Contents| -> Vec<(String, (usize, bool))> {
        side.dims.iter().map(|(name, len, unlimited)| (name.clone(), (*len, *unlimited))).collect()
    };
    for dimension in unequal(&sizes(theirs), &sizes(ours)) {
        add("(file)", format!("dimension:{dimension}"));
    }
    let names: BTreeSet<_> = theirs.variables.keys().chain(ours.variables.keys()).collect();
    for name in names {
        let (Some(left), Some(right)) = (theirs.variables.get(name), ours.variables.get(name))
        else {
            add(name, "presence".to_owned());
            continue;
        };
        let same_values = match left.dtype == right.dtype {
            true => left.bytes == right.bytes,
            false => numbers(left) == numbers(right),
        };
        let aspects = [
            ("dimensions", left.dim_names() == right.dim_names()),
            ("type", left.dtype == right.dtype),
            ("storage", (&left.chunk, left.filters) == (&right.chunk, right.filters)),
            ("values", same_values),
        ];
        for (aspect, _) in aspects.into_iter().filter(|(_, same)| !same) {
            add(name, aspect.to_owned());
        }
        for attribute in unequal(&left.attributes, &right.attributes) {
            add(name, format!("attribute:{attribute}"));
        }
    }
    found
}

#[test]
fn differences_from_the_reference_are_those_in_docs_parity() {
    let Some(data) = shared("parity with the reference") else { return };
    let folder = convert_mini_case(&data);
    let mut found = BTreeSet::new();
    for month in ["0347-04", "0347-05", "0362-03"] {
        let name = format!("smyle.cdr-atlas-v0.glb-dor.112-1999-04.pop.h.{month}.nc");
        let theirs = contents(&folder.path().join("mini-expected").join(&name));
        let ours = contents(&folder.path().join("out/112/04").join(&name));
        assert!(theirs.variables.len() > 60);
        found.extend(differences(&theirs, &ours));
    }
    let rows = documented_rows();
    assert!(rows.len() > 5, "docs/parity.md has no table");
    let missing: Vec<_> = found.iter().filter(|d| !rows.iter().any(|row| covers(row, d))).collect();
    assert!(missing.is_empty(), "not in docs/parity.md: {missing:#?}");
    let unused: Vec<_> = rows.iter().filter(|row| !found.iter().any(|d| covers(row, d))).collect();
    assert!(unused.is_empty(), "in docs/parity.md, but not found: {unused:#?}");
    let in_values =
        found.iter().filter(|(_, aspect)| ["values", "presence"].contains(&aspect.as_str()));
    assert_eq!(in_values.collect::<Vec<_>>(), Vec::<&Difference>::new());
}

#[test]
fn patterns_match_as_in_the_shell() {
    assert!(matches("attribute:*", "attribute:units") && matches("z_*", "z_t_150m"));
    assert!(matches("[a-oq-z]*_*", "rho_sw") && !matches("[a-oq-z]*_*", "polygon_id"));
    assert!(matches("KMT", "KMT") && !matches("KMT", "KMTX") && !matches("*x", "y"));
}
