//! Code that is compiled for an instruction set runs only where the CPU was found to have it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Adds the text of every file below a directory.
fn read_all(directory: &Path, texts: &mut Vec<String>) {
    for entry in fs::read_dir(directory).expect("the directory can be read") {
        let path = entry.expect("the directory can be read").path();
        if path.is_dir() {
            read_all(&path, texts);
        } else {
            texts.push(fs::read_to_string(&path).expect("sources are text"));
        }
    }
}

#[test]
fn every_instruction_set_that_code_is_compiled_for_is_looked_for() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut texts = Vec::new();
    read_all(&sources, &mut texts);
    let lists = texts.iter().flat_map(|text| text.split("#[target_feature(enable = \"").skip(1));
    let lists = lists.filter_map(|text| text.split('"').next());
    let used: BTreeSet<&str> = lists.flat_map(|list| list.split(',')).collect();
    assert!(used.contains("avx2") && used.contains("avx512f"), "{used:?}");
    let level = fs::read_to_string(sources.join("level.rs")).expect("sources are text");
    for feature in used {
        assert!(level.contains(&format!("is_x86_feature_detected!(\"{feature}\")")), "{feature}");
    }
}
