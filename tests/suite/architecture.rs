//! Rules of the architecture: which module may import which, where code may block on a future, and
//! how long a file may be.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The modules that each module may import besides itself. `cli`, `lib` and `main` are not listed:
/// they may import all.
const MAY_IMPORT: [(&str, &[&str]); 16] = [
    ("model", &[]),
    ("store", &["model"]),
    ("read", &["model"]),
    ("derive", &["model"]),
    ("regrid", &["model"]),
    ("encode", &["model"]),
    ("case_manifest", &["model", "store"]),
    // Feeds bytes to the reader and stores the parts that the encoder writes.
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
    // Decodes the chunks that it would replace.
    ("publish", &["model", "store", "encode", "executor", "case_manifest"]),
    ("campaign", &["model", "store", "read", "executor", "case_manifest", "research", "vis"]),
    ("plot", &["model"]),
    ("synthetic", &["model"]),
    ("demo", &["model", "store", "encode", "executor", "research", "synthetic", "case_manifest"]),
    ("config", &["model", "store"]),
];
/// Modules without I/O and without async code.
const PURE: [&str; 7] = ["model", "read", "derive", "regrid", "encode", "plot", "synthetic"];

/// A Rust file of a folder.
struct SourceFile {
    /// Path below the folder.
    path: String,
    /// The text without comments and without the `tests` module.
    code: String,
    lines: usize,
}

impl SourceFile {
    /// The top-level module that the file belongs to.
    fn module(&self) -> &str {
        self.path.split('/').next().unwrap().trim_end_matches(".rs")
    }

    /// Top-level modules that the file names through `crate::`.
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

    /// Whether `word` occurs in the code as a whole identifier.
    fn mentions(&self, word: &str) -> bool {
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

fn sources(folder: &str) -> Vec<SourceFile> {
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
        SourceFile { path, code, lines: text.lines().count() }
    };
    paths.into_iter().map(source).collect()
}

#[track_caller]
fn assert_empty(found: Vec<String>) {
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn modules_import_only_allowed_modules() {
    let sources = sources("src");
    let mut violations = Vec::new();
    for source in &sources {
        let module = source.module();
        let allowed = MAY_IMPORT.iter().find(|(name, _)| *name == module).map(|(_, may)| *may);
        for import in source.imports().into_iter().filter(|import| *import != module) {
            let may = match allowed {
                Some(allowed) => allowed.contains(&import),
                None => import != "cli" || module == "main",
            };
            if !may {
                violations.push(format!("src/{} imports {import}", source.path));
            }
        }
    }
    assert_empty(violations);
    // The scan itself works: it finds imports that are known to exist.
    let run = sources.iter().find(|source| source.path == "research/execute.rs").unwrap();
    let expected = ["case_manifest", "encode", "executor", "model", "store"];
    assert_eq!(run.imports().into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn only_the_store_module_uses_object_store() {
    let sources = sources("src");
    let uses_it = |source: &&SourceFile| source.mentions("object_store");
    let others = sources.iter().filter(|source| source.module() != "store").filter(uses_it);
    assert_empty(others.map(|source| source.path.clone()).collect());
    assert!(sources.iter().filter(uses_it).count() > 3);
}

#[test]
fn pure_modules_have_no_async_code_and_no_module_uses_print_macros() {
    let mut violations = Vec::new();
    for source in sources("src") {
        // `cli::main` blocks on the one future of the program.
        let may_block = source.path == "cli/mod.rs" || source.module() == "executor";
        if source.mentions("block_on") && !may_block {
            violations.push(format!("src/{} blocks on a future", source.path));
        }
        let asynchronous =
            ["async", "await", "tokio", "futures"].iter().find(|w| source.mentions(w));
        if let (true, Some(word)) = (PURE.contains(&source.module()), asynchronous) {
            violations.push(format!("src/{} uses {word}", source.path));
        }
        let prints = ["println", "eprintln", "print", "eprint"];
        if prints.iter().any(|name| source.code.contains(&format!("{name}!("))) {
            violations.push(format!("src/{} uses a print macro", source.path));
        }
    }
    assert_empty(violations);
}

#[test]
fn no_file_is_longer_than_500_lines() {
    let long = ["src", "tests", "benches"].into_iter().flat_map(|folder| {
        let all = sources(folder).into_iter().filter(|source| source.lines > 500);
        all.map(move |source| format!("{folder}/{} has {} lines", source.path, source.lines))
    });
    assert_empty(long.collect());
    assert!(sources("src").iter().any(|source| source.path == "main.rs" && source.lines <= 40));
}
