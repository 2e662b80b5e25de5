//! There is no import cycle between files. Imports are followed through re-exports to the file that
//! defines the item.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemMod, ItemUse, UseTree, Visibility};

/// Path of a module below the crate.
type Module = Vec<String>;

/// The paths that a file uses and re-exports.
#[derive(Default)]
struct Names {
    /// Paths in `use` items and in code.
    used: Vec<Vec<String>>,
    /// Re-exported names and their paths.
    exports: BTreeMap<String, Vec<String>>,
}

impl Visit<'_> for Names {
    fn visit_item(&mut self, item: &Item) {
        let attributes: &[Attribute] = match item {
            Item::Mod(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            _ => &[],
        };
        let is_test = |attribute: &Attribute| {
            let list = attribute.meta.require_list();
            attribute.path().is_ident("cfg") && list.is_ok_and(|l| l.tokens.to_string() == "test")
        };
        if !attributes.iter().any(is_test) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &ItemMod) {
        visit::visit_item_mod(self, item);
    }

    fn visit_item_use(&mut self, item: &ItemUse) {
        let mut paths = Vec::new();
        flatten(&item.tree, Vec::new(), &mut paths);
        for (name, path) in paths {
            match item.vis {
                Visibility::Inherited => self.used.push(path),
                _ => drop(self.exports.insert(name, path)),
            }
        }
    }

    fn visit_path(&mut self, path: &syn::Path) {
        self.used.push(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }
}

/// The paths of a `use`, each with the name that it has in the file.
fn flatten(tree: &UseTree, mut before: Vec<String>, found: &mut Vec<(String, Vec<String>)>) {
    match tree {
        UseTree::Path(path) => {
            before.push(path.ident.to_string());
            flatten(&path.tree, before, found);
        }
        UseTree::Name(name) => {
            // `self` in braces names the module before the braces.
            if name.ident != "self" {
                before.push(name.ident.to_string());
            }
            found.push((before.last().cloned().unwrap_or_default(), before));
        }
        UseTree::Rename(rename) => {
            before.push(rename.ident.to_string());
            found.push((rename.rename.to_string(), before));
        }
        UseTree::Group(group) => {
            group.items.iter().for_each(|tree| flatten(tree, before.clone(), found));
        }
        UseTree::Glob(_) => found.push(("*".to_owned(), before)),
    }
}

/// All modules of the crate.
struct Crate(BTreeMap<Module, Names>);

impl Crate {
    fn read(root: &Path) -> Self {
        let mut modules = BTreeMap::new();
        read_modules(root, &mut Vec::new(), &mut modules);
        Self(modules)
    }

    /// The module that defines what `path` names in module `from`; `None` outside of the crate.
    fn resolve(&self, from: &Module, path: &[String], depth: usize) -> Option<Module> {
        let first = path.first()?;
        let mut at = match first.as_str() {
            "crate" => Vec::new(),
            "self" | "super" => from.clone(),
            child => {
                let child = [&from[..], &[child.to_owned()]].concat();
                self.0.contains_key(&child).then(|| from.clone())?
            }
        };
        for name in path {
            match name.as_str() {
                "crate" | "self" => continue,
                "super" => {
                    at.pop();
                    continue;
                }
                _ => {}
            }
            let child = [&at[..], std::slice::from_ref(name)].concat();
            if self.0.contains_key(&child) {
                at = child;
                continue;
            }
            return match self.0.get(&at).and_then(|names| names.exports.get(name)) {
                Some(export) if depth < 8 => self.resolve(&at, export, depth + 1),
                _ => Some(at),
            };
        }
        Some(at)
    }

    /// The modules that each module imports from.
    fn imports(&self) -> BTreeMap<&Module, BTreeSet<Module>> {
        let of = |(module, names): (_, &Names)| {
            let found = names.used.iter().filter(|path| path.len() > 1);
            let found = found.filter_map(|path| self.resolve(module, path, 0));
            // `lib.rs` defines nothing that other modules use.
            (module, found.filter(|other| other != module && !other.is_empty()).collect())
        };
        self.0.iter().filter(|(module, _)| !module.is_empty()).map(of).collect()
    }
}

/// Reads the files below the folder of a module.
fn read_modules(folder: &Path, module: &mut Module, modules: &mut BTreeMap<Module, Names>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            module.push(stem);
            read_modules(&path, module, modules);
            module.pop();
        } else if path.extension().is_some_and(|e| e == "rs") && stem != "main" {
            let mut names = Names::default();
            names.visit_file(&syn::parse_file(&fs::read_to_string(&path).unwrap()).unwrap());
            let is_folder = ["mod", "lib"].contains(&&*stem);
            let own = if is_folder { Vec::new() } else { vec![stem] };
            modules.insert([&module[..], &own].concat(), names);
        }
    }
}

/// A chain of imports from a module back to itself.
fn find_cycle(
    start: &Module,
    imports: &BTreeMap<&Module, BTreeSet<Module>>,
) -> Option<Vec<Module>> {
    let mut chains = vec![vec![start.clone()]];
    let mut seen = BTreeSet::new();
    while let Some(chain) = chains.pop() {
        for next in imports.get(chain.last()?).into_iter().flatten() {
            if next == start {
                return Some(chain);
            }
            if seen.insert(next) {
                chains.push([&chain[..], std::slice::from_ref(next)].concat());
            }
        }
    }
    None
}

#[test]
fn no_import_cycle_between_files_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let all = Crate::read(&root);
    let imports = all.imports();
    let cycles = imports.keys().filter_map(|module| find_cycle(module, &imports));
    let shown = cycles
        .map(|chain| chain.iter().map(|module| module.join("/")).collect::<Vec<_>>().join(" -> "));
    let found: Vec<String> = shown.collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
    // The scan itself works: it finds imports that are known to exist.
    let module = |path: &str| path.split('/').map(str::to_owned).collect::<Module>();
    assert!(imports[&module("publish/execute")].contains(&module("publish/manifest")));
    assert!(imports[&module("publish/execute")].contains(&module("executor")));
    assert!(imports.values().map(BTreeSet::len).sum::<usize>() > 1_000);
}
