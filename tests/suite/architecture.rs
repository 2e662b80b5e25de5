//! The rules of the house: who may import whom, where tokio may block, how long a file may be.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Modules and what each may import besides itself; `cli` and the front page may import all.
const MAY_IMPORT: [(&str, &[&str]); 16] = [
    ("model", &[]),
    ("store", &["model"]),
    ("read", &["model"]),
    ("derive", &["model"]),
    ("regrid", &["model"]),
    ("encode", &["model"]),
    ("case_manifest", &["model", "store"]),
    // Serves the reader with bytes and the encoder with a place for its parts.
    ("executor", &["model", "store", "read", "encode"]),
    ("research", &["model", "store", "read", "derive", "encode", "executor", "case_manifest"]),
    (
        "vis",
        &[
            "model",
            "store",
            "read",
            "derive",
            "regrid",
            "encode",
            "executor",
            "research",
            "case_manifest",
        ],
    ),
    // Looks into the chunks that it would replace.
    ("publish", &["model", "store", "encode", "executor", "case_manifest"]),
    ("campaign", &["model", "store", "read", "executor", "case_manifest", "research", "vis"]),
    ("plot", &["model"]),
    ("synthetic", &["model"]),
    ("demo", &["model", "store", "encode", "executor", "research", "synthetic", "case_manifest"]),
    ("config", &["model", "store"]),
];
const PURE: [&str; 7] = ["model", "read", "derive", "regrid", "encode", "plot", "synthetic"];

struct Source {
    /// Path below `src`.
    path: String,
    /// Its text without comments and without what follows `#[cfg(test)]`.
    code: String,
    lines: usize,
}

impl Source {
    /// The module of the first level that the file belongs to.
    fn module(&self) -> &str {
        self.path.split('/').next().unwrap().trim_end_matches(".rs")
    }

    /// Modules of the first level that it names through `crate::`.
    fn imports(&self) -> BTreeSet<&str> {
        let mut found = BTreeSet::new();
        for (at, start) in self.code.match_indices("crate::") {
            let rest = &self.code[at + start.len()..];
            let names: Vec<&str> = match rest.strip_prefix('{') {
                Some(list) => list[..list.find("};").unwrap_or(list.len())].split(',').collect(),
                None => vec![rest],
            };
            let end = |name: &str| name.find(|c: char| !c.is_alphanumeric() && c != '_');
            found.extend(names.into_iter().map(str::trim).map(|n| &n[..end(n).unwrap_or(n.len())]));
        }
        found.retain(|name| name.starts_with(|c: char| c.is_ascii_lowercase()));
        found
    }

    fn names(&self, word: &str) -> bool {
        let part = |c: char| c.is_alphanumeric() || c == '_';
        self.code.match_indices(word).any(|(at, _)| {
            !self.code[..at].ends_with(part) && !self.code[at + word.len()..].starts_with(part)
        })
    }
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn sources(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut paths = Vec::new();
    if root.exists() {
        rust_files(&root, &mut paths);
    }
    let source = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let own = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let lines = own.lines().map(|line| line.split("//").next().unwrap_or_default());
        let code = lines.collect::<Vec<_>>().join("\n");
        let path = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        Source { path, code, lines: text.lines().count() }
    };
    paths.into_iter().map(source).collect()
}

#[track_caller]
fn assert_none(found: Vec<String>) {
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn modules_import_only_what_they_may() {
    let sources = sources("src");
    let mut against = Vec::new();
    for source in &sources {
        let module = source.module();
        let allowed = MAY_IMPORT.iter().find(|(name, _)| *name == module).map(|(_, may)| *may);
        for import in source.imports().into_iter().filter(|import| *import != module) {
            let may = match allowed {
                Some(allowed) => allowed.contains(&import),
                None => import != "cli" || module == "main",
            };
            if !may {
                against.push(format!("src/{} imports {import}", source.path));
            }
        }
    }
    assert_none(against);
    // The scan sees what it is there to see.
    let run = sources.iter().find(|source| source.path == "research/execute.rs").unwrap();
    let expected = ["case_manifest", "encode", "executor", "model", "store"];
    assert_eq!(run.imports().into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn only_the_storage_layer_knows_object_store() {
    let sources = sources("src");
    let names = |source: &&Source| source.names("object_store");
    let others = sources.iter().filter(|source| source.module() != "store").filter(names);
    assert_none(others.map(|source| source.path.clone()).collect());
    assert!(sources.iter().filter(names).count() > 3);
}

#[test]
fn async_ends_where_the_pure_modules_begin() {
    let mut against = Vec::new();
    for source in sources("src") {
        // The program is one future, which `cli::main` begins.
        let may_block = source.path == "cli/mod.rs" || source.module() == "executor";
        if source.names("block_on") && !may_block {
            against.push(format!("src/{} blocks on a future", source.path));
        }
        let asynchronous = ["async", "await", "tokio", "futures"].iter().find(|w| source.names(w));
        if let (true, Some(word)) = (PURE.contains(&source.module()), asynchronous) {
            against.push(format!("src/{} has {word}", source.path));
        }
        let prints = ["println", "eprintln", "print", "eprint"];
        if prints.iter().any(|name| source.code.contains(&format!("{name}!("))) {
            against.push(format!("src/{} prints past its writer", source.path));
        }
    }
    assert_none(against);
}

#[test]
fn no_file_is_longer_than_500_lines() {
    let long = ["src", "tests", "benches"].into_iter().flat_map(|folder| {
        let all = sources(folder).into_iter().filter(|source| source.lines > 500);
        all.map(move |source| format!("{folder}/{} has {} lines", source.path, source.lines))
    });
    assert_none(long.collect());
    assert!(sources("src").iter().any(|source| source.path == "main.rs" && source.lines <= 40));
}
