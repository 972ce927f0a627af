//! Paths: each starts from the place of the file it is written in, also where it reaches the field through a name of
//! another file.

use crate::schema::Ty;
use crate::source::FileId;

use super::checker::Checker;
use super::value::{Kind, Val};

impl<'p> Checker<'p> {
    /// A path, relative to the root file's directory.
    pub(crate) fn path(&mut self, value: &Val<'p>, field: &str) -> Option<String> {
        let Kind::Text(path, file) = &value.kind else {
            self.wrong(value, Ty::Text, field);
            return None;
        };
        Some(self.beside_root(*file, path))
    }

    /// A path or a list of paths, relative to the root file's directory.
    pub(crate) fn paths(&mut self, value: &Val<'p>, field: &str) -> Option<Vec<String>> {
        match &value.kind {
            Kind::Text(..) => self.path(value, field).map(|path| vec![path]),
            Kind::List(items) => {
                let items = items.clone();
                items.iter().map(|v| self.path(v, field)).collect()
            }
            _ => {
                self.wrong(value, Ty::Paths, field);
                None
            }
        }
    }

    /// A path written in `file`, relative to the root file's directory. What is given from outside starts there.
    fn beside_root(&self, file: FileId, path: &str) -> String {
        let modules = &self.program.modules;
        let root = modules[0].file;
        if file == root || path.starts_with('/') || modules.iter().all(|m| m.file != file) {
            return path.to_owned();
        }
        let directory = |file: FileId| {
            let name = self.files.name(file);
            name.rfind('/')
                .map_or("", |slash| &name[..slash])
                .split('/')
                .filter(|p| !p.is_empty())
                .collect::<Vec<_>>()
        };
        let (root, own) = (directory(root), directory(file));
        let common = root.iter().zip(&own).take_while(|(a, b)| a == b).count();
        let mut parts: Vec<&str> = std::iter::repeat_n("..", root.len() - common).collect();
        parts.extend(&own[common..]);
        parts.push(path);
        parts.join("/")
    }
}
