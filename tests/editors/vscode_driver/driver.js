// Gives VS Code for Web a folder in memory and opens the demo; what a person would do by mouse is
// done by vscode.mjs.
const vscode = require('vscode');

const files = new Map();

exports.activate = async (context) => {
  const changed = new vscode.EventEmitter();
  context.subscriptions.push(
    vscode.workspace.registerFileSystemProvider('memfs', {
      onDidChangeFile: changed.event,
      watch: () => new vscode.Disposable(() => {}),
      stat: (uri) => {
        if (uri.path === '/') return { type: vscode.FileType.Directory, ctime: 0, mtime: 0, size: 0 };
        const bytes = files.get(uri.path);
        if (!bytes) throw vscode.FileSystemError.FileNotFound(uri);
        return { type: vscode.FileType.File, ctime: 0, mtime: Date.now(), size: bytes.length };
      },
      readDirectory: () => [...files.keys()].map((p) => [p.slice(1), vscode.FileType.File]),
      createDirectory: () => {},
      readFile: (uri) => {
        const bytes = files.get(uri.path);
        if (!bytes) throw vscode.FileSystemError.FileNotFound(uri);
        return bytes;
      },
      writeFile: (uri, bytes) => void files.set(uri.path, bytes),
      delete: (uri) => void files.delete(uri.path),
      rename: () => {},
    }),
  );
  const base = context.extensionUri;
  for (const name of ['demo.curriculum', 'demo_sources.curriculum']) {
    const answer = await fetch(vscode.Uri.joinPath(base, '..', 'files', name).toString(true));
    files.set(`/${name}`, new Uint8Array(await answer.arrayBuffer()));
  }
  const uri = vscode.Uri.parse('memfs:/demo.curriculum');
  await vscode.window.showTextDocument(await vscode.workspace.openTextDocument(uri));
  await vscode.commands.executeCommand('workbench.actions.view.problems');
  await vscode.commands.executeCommand('workbench.action.focusActiveEditorGroup');
  console.log('MIDC-DRIVER ready');
};
