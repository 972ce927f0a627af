// What the desktop and the browser share: settings, the plan beside the text, commands.
const vscode = require('vscode');

/** Client options for vscode-languageclient. */
function options(output, panel) {
  return {
    documentSelector: [{ language: 'curriculum' }],
    outputChannel: output,
    // A plain copy: the object itself has methods, which no message can carry.
    initializationOptions: JSON.parse(JSON.stringify(vscode.workspace.getConfiguration('midc'))),
    synchronize: { configurationSection: 'midc' },
    middleware: {
      // Lenses run commands of the server; what needs a window or a terminal happens here.
      executeCommand: async (command, args, next) => {
        switch (command) {
          case 'midc.showPlan':
            return panel.show(vscode.Uri.parse(args[0]), next);
          case 'midc.plan':
            return run(['plan', vscode.Uri.parse(args[0]).fsPath]);
          case 'midc.rehearse':
            return run(['rehearse', vscode.Uri.parse(args[0]).fsPath]);
          default:
            return next(command, args);
        }
      },
    },
  };
}

/** The program to run in a terminal; the desktop knows better. */
let program = 'midc';
function setProgram(path) {
  program = path;
}

function quoted(word) {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replace(/'/g, `'\\''`)}'`;
}

function run(words) {
  if (vscode.env.uiKind === vscode.UIKind.Web && !vscode.env.remoteName) {
    vscode.window.showInformationMessage(`This needs the midc program: run \`midc ${words.join(' ')}\` in a terminal.`);
    return;
  }
  const terminal =
    vscode.window.terminals.find((t) => t.name === 'midc') ?? vscode.window.createTerminal('midc');
  terminal.show(true);
  terminal.sendText([program, ...words].map(quoted).join(' '));
}

/** The plan as a figure beside the text. Follows the text as it is typed. */
class PlanPanel {
  constructor(context) {
    this.context = context;
    this.panel = undefined;
    this.uri = undefined;
    this.ask = undefined;
    this.timer = undefined;
    context.subscriptions.push(
      vscode.workspace.onDidChangeTextDocument((event) => {
        // A change in a file it uses moves the figure too.
        if (this.panel && event.document.languageId === 'curriculum') this.later();
      }),
      vscode.window.onDidChangeActiveTextEditor((editor) => {
        if (this.panel && editor?.document.languageId === 'curriculum') {
          this.uri = editor.document.uri;
          this.later();
        }
      }),
    );
  }

  async show(uri, ask) {
    this.uri = uri;
    if (ask) this.ask = ask;
    if (!this.panel) {
      this.panel = vscode.window.createWebviewPanel(
        'midc.plan',
        'Plan',
        { viewColumn: vscode.ViewColumn.Beside, preserveFocus: true },
        { enableScripts: true, retainContextWhenHidden: true },
      );
      this.panel.onDidDispose(() => (this.panel = undefined));
      this.panel.webview.html = page();
    }
    await this.refresh();
  }

  later() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.refresh(), 120);
  }

  async refresh() {
    if (!this.panel || !this.ask || !this.uri) return;
    try {
      const answer = await this.ask('midc.showPlan', [this.uri.toString()]);
      const name = this.uri.path.split('/').pop();
      if (!this.panel || !answer) return;
      this.panel.title = `Plan: ${name}`;
      this.panel.webview.postMessage(answer);
    } catch (error) {
      this.panel?.webview.postMessage({ svg: null, stale: true, errors: 0, failed: String(error.message ?? error) });
    }
  }
}

function page() {
  return `<!DOCTYPE html>
<html>
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<style>
  body { margin: 0; padding: 8px 12px; color: var(--vscode-foreground); font-family: var(--vscode-font-family); }
  #figure svg { max-width: 100%; height: auto; display: block; transition: opacity .15s; }
  #figure.stale svg { opacity: .45; }
  #note { min-height: 1.4em; color: var(--vscode-descriptionForeground); }
  #note.wrong { color: var(--vscode-errorForeground); }
  body.vscode-dark .mc-plan { --mc-bg: transparent; --mc-ink:#e8ecf0; --mc-mute:#a3adb8; --mc-grid:#3a4148; --mc-edge:#56616c; --mc-box:#2a323b; --mc-c0:#6db3f2; --mc-c1:#f39a63; --mc-c2:#63c98a; --mc-c3:#b997f0 }
  body.vscode-light .mc-plan { --mc-bg: transparent; --mc-ink:#1b2129; --mc-mute:#55606c; --mc-grid:#e6eaee; --mc-edge:#a8b2bd; --mc-box:#eef2f7; --mc-c0:#0a5aa8; --mc-c1:#b8460e; --mc-c2:#12753a; --mc-c3:#7433c4 }
</style>
</head>
<body>
<div id="note">Drawing the plan…</div>
<div id="figure"></div>
<script>
  const figure = document.getElementById('figure');
  const note = document.getElementById('note');
  window.addEventListener('message', ({ data }) => {
    if (data.svg) figure.innerHTML = data.svg;
    figure.className = data.stale ? 'stale' : '';
    note.className = data.stale ? 'wrong' : '';
    const errors = data.errors === 1 ? '1 error' : data.errors + ' errors';
    note.textContent = data.failed ? data.failed
      : !data.stale ? (data.errors ? errors + '; the plan is drawn in spite of it' : '')
      : data.svg ? errors + ': this is the plan before' : errors + ': no plan yet';
  });
</script>
</body>
</html>`;
}

/** Commands that both kinds of client have. */
function commands(context, session) {
  context.subscriptions.push(
    vscode.commands.registerCommand('midc.openPlan', async () => {
      const document = vscode.window.activeTextEditor?.document;
      if (document?.languageId !== 'curriculum') {
        vscode.window.showInformationMessage('Open a .curriculum file first.');
        return;
      }
      await session.panel.show(document.uri, (command, args) =>
        session.client().sendRequest('workspace/executeCommand', { command, arguments: args }),
      );
    }),
    vscode.commands.registerCommand('midc.restart', () => session.restart()),
    vscode.commands.registerCommand('midc.showLog', () => session.output.show()),
  );
}

module.exports = { options, PlanPanel, commands, setProgram };
