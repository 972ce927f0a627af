// The page of the playground: an editor over the language server in WebAssembly.
'use strict';

const $ = (id) => document.getElementById(id);
const text = $('text');
const ROOT = 'file:///playground/';
const library = JSON.parse($('library').textContent);
const MAIN = `${ROOT}main.curriculum`;

let server, nextId = 0, version = 1, diagnostics = [], types = [], hoverTimer;

// ── the server ──────────────────────────────────────────────────────────────────────────────────

function send(message) {
  const bytes = new TextEncoder().encode(JSON.stringify({ jsonrpc: '2.0', ...message }));
  const at = server.reserve(bytes.length);
  new Uint8Array(server.memory.buffer, at, bytes.length).set(bytes);
  const length = server.handle();
  const answers = JSON.parse(new TextDecoder().decode(new Uint8Array(server.memory.buffer, server.answer(), length)));
  for (const answer of answers) {
    if (answer.method === 'textDocument/publishDiagnostics' && answer.params.uri === MAIN) diagnostics = answer.params.diagnostics;
  }
  return answers;
}

const tell = (method, params) => void send({ method, params });
function ask(method, params) {
  const id = ++nextId;
  const answer = send({ id, method, params }).find((a) => a.id === id);
  return answer && answer.result;
}
const document_ = { uri: MAIN };

async function start() {
  const encoded = atob($('wasm').textContent);
  const bytes = Uint8Array.from(encoded, (c) => c.charCodeAt(0));
  server = (await WebAssembly.instantiate(bytes, {})).instance.exports;
  const result = ask('initialize', { capabilities: { textDocument: { publishDiagnostics: { relatedInformation: false } } } });
  types = result.capabilities.semanticTokensProvider.legend.tokenTypes;
  tell('initialized', {});
  for (const [name, content] of Object.entries(library.shared)) tell('midc/file', { uri: ROOT + name, text: content });
  tell('textDocument/didOpen', { textDocument: { uri: MAIN, languageId: 'curriculum', version, text: '' } });
  for (const { name } of library.examples) $('examples').add(new Option(name.replace(/_/g, ' '), name));
  const wanted = decodeURIComponent(location.hash.slice(1));
  open_(library.examples.find((e) => e.name === wanted) ?? library.examples[0]);
  document.body.dataset.ready = 'yes';
}

function open_(example) {
  $('examples').value = example.name;
  text.value = example.text;
  text.setSelectionRange(0, 0);
  $('figure').innerHTML = '';
  changed();
  $('editor').scrollTo(0, 0);
}

// ── what is shown ───────────────────────────────────────────────────────────────────────────────

function changed() {
  tell('textDocument/didChange', { textDocument: { uri: MAIN, version: ++version }, contentChanges: [{ text: text.value }] });
  paint();
  problems();
  figure();
}

const escape_ = (s) => s.replace(/[&<>"]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[c]);

function starts() {
  const out = [0];
  for (let i = 0; i < text.value.length; i++) if (text.value[i] === '\n') out.push(i + 1);
  return out;
}
const offset = (lines, { line, character }) => Math.min((lines[line] ?? text.value.length) + character, text.value.length);
function place(at) {
  const before = text.value.slice(0, at);
  const line = before.split('\n').length - 1;
  return { line, character: at - (before.lastIndexOf('\n') + 1) };
}

/** Colors, wavy lines and, behind each line, what the compiler derives. */
function paint() {
  const value = text.value;
  const lines = starts();
  // A class for every character that has one: spans follow from where it changes.
  const color = new Array(value.length);
  const wave = new Array(value.length);
  const data = ask('textDocument/semanticTokens/full', { textDocument: document_ })?.data ?? [];
  let line = 0, character = 0;
  for (let i = 0; i < data.length; i += 5) {
    if (data[i]) { line += data[i]; character = 0; }
    character += data[i + 1];
    const from = lines[line] + character;
    for (let k = from; k < from + data[i + 2]; k++) color[k] = types[data[i + 3]];
  }
  for (const match of value.matchAll(/"(?:[^"\\\n]|\\.)*"?|#.*/g)) {
    if (match[0][0] !== '#') continue;
    for (let k = match.index; k < match.index + match[0].length; k++) color[k] = 'comment';
  }
  for (const match of value.matchAll(/\b(then|of|and|or|not|where|in|as)\b/g)) {
    if (!color[match.index]) for (let k = match.index; k < match.index + match[0].length; k++) color[k] = 'keyword';
  }
  for (const d of diagnostics) {
    const from = offset(lines, d.range.start);
    const to = Math.max(offset(lines, d.range.end), from + 1);
    for (let k = from; k < to; k++) if (wave[k] !== 'wrong') wave[k] = d.severity === 1 ? 'wrong' : 'warn';
  }
  const hints = {};
  const whole = { start: { line: 0, character: 0 }, end: { line: lines.length, character: 0 } };
  for (const h of ask('textDocument/inlayHint', { textDocument: document_, range: whole }) ?? []) {
    (hints[h.position.line] ??= []).push(h.label);
  }
  let html = '', open = '';
  const close = () => { if (open) html += '</span>'; open = ''; };
  for (let i = 0, at = 0; i <= value.length; i++) {
    if (i === value.length || value[i] === '\n') {
      close();
      if (hints[at]) html += `<span class="hint">   ${escape_(hints[at].join(' · '))}</span>`;
      html += '\n';
      at++;
      continue;
    }
    const classes = [color[i], wave[i]].filter(Boolean).join(' ');
    if (classes !== open) {
      close();
      if (classes) html += `<span class="${classes}">`;
      open = classes;
    }
    html += escape_(value[i]);
  }
  $('shown').innerHTML = html;
  $('numbers').textContent = lines.map((_, i) => i + 1).join('\n');
}

function problems() {
  const box = $('problems');
  box.replaceChildren();
  const lines = starts();
  for (const d of [...diagnostics].sort((a, b) => a.severity - b.severity)) {
    const [head, ...more] = d.message.split('\n');
    const item = document.createElement('div');
    item.className = `problem ${d.severity === 1 ? 'error' : 'warning'}`;
    item.innerHTML = `<b>${d.severity === 1 ? 'error' : 'warning'}</b> ${escape_(head)} <code>${escape_(String(d.code))} · line ${d.range.start.line + 1}</code><div>${escape_(more.join('\n'))}</div>`;
    item.onclick = () => {
      text.focus();
      text.setSelectionRange(offset(lines, d.range.start), offset(lines, d.range.end));
      $('editor').scrollTo({ top: Math.max(0, d.range.start.line * 20 - 120), behavior: 'smooth' });
    };
    const actions = ask('textDocument/codeAction', { textDocument: document_, range: d.range, context: { diagnostics: [d] } }) ?? [];
    for (const action of actions) {
      const same = action.diagnostics?.some((x) => x.code === d.code && x.message === d.message);
      if (!same) continue;
      const button = document.createElement('button');
      button.textContent = action.title;
      button.onclick = (event) => {
        event.stopPropagation();
        apply(action.edit.changes[MAIN]);
      };
      item.append(button);
    }
    box.append(item);
  }
}

function apply(edits) {
  if (!edits?.length) return;
  const lines = starts();
  const sorted = edits.map((e) => [offset(lines, e.range.start), offset(lines, e.range.end), e.newText]).sort((a, b) => b[0] - a[0]);
  const caret = text.selectionStart;
  text.focus();
  for (const [from, to, content] of sorted) replace(from, to, content);
  text.setSelectionRange(Math.min(caret, text.value.length), Math.min(caret, text.value.length));
  changed();
}

/** Through the browser's own editing, so that undo works. */
let ours = false;
function replace(from, to, content) {
  ours = true;
  text.setSelectionRange(from, to);
  const done = content === '' ? from === to || document.execCommand('delete') : document.execCommand('insertText', false, content);
  if (!done) text.setRangeText(content, from, to, 'end');
  ours = false;
}

/** Keep the caret where it can be seen: the text area is as large as its text and does not scroll. */
function reveal() {
  const { line, character } = place(text.selectionStart);
  const box = $('editor');
  const [top, left] = [10 + line * 20, character * characterWidth()];
  if (top < box.scrollTop + 20) box.scrollTop = top - 40;
  if (top + 40 > box.scrollTop + box.clientHeight) box.scrollTop = top + 60 - box.clientHeight;
  const room = box.clientWidth - $('numbers').offsetWidth - 30;
  if (left < box.scrollLeft) box.scrollLeft = left - 40;
  if (left > box.scrollLeft + room) box.scrollLeft = left - room + 40;
}

function figure() {
  const drawn = ask('workspace/executeCommand', { command: 'midc.showPlan', arguments: [MAIN] });
  if (!drawn) return;
  const count = (n) => (n === 1 ? '1 error' : `${n} errors`);
  if (drawn.svg) $('figure').innerHTML = drawn.svg;
  $('figure').className = drawn.stale ? 'stale' : '';
  $('note').className = drawn.stale ? 'wrong' : '';
  $('note').textContent = !drawn.stale ? (drawn.errors ? `${count(drawn.errors)}; the plan is drawn in spite of it` : 'no errors') : drawn.svg ? `${count(drawn.errors)}: this is the plan before` : `${count(drawn.errors)}: no plan yet`;
}

// ── hover ───────────────────────────────────────────────────────────────────────────────────────

let width;
function characterWidth() {
  if (!width) {
    const probe = document.createElement('canvas').getContext('2d');
    probe.font = getComputedStyle(text).font;
    width = probe.measureText('0'.repeat(100)).width / 100;
  }
  return width;
}

text.addEventListener('mousemove', (event) => {
  clearTimeout(hoverTimer);
  $('hover').hidden = true;
  const box = text.getBoundingClientRect();
  const line = Math.floor((event.clientY - box.top - 10) / 20);
  const character = Math.floor((event.clientX - box.left - 10) / characterWidth());
  if (line < 0 || character < 0 || character >= (text.value.split('\n')[line] ?? '').length) return;
  hoverTimer = setTimeout(() => {
    const found = ask('textDocument/hover', { textDocument: document_, position: { line, character } });
    if (!found) return;
    const card = $('hover');
    card.innerHTML = markdown(found.contents.value);
    card.hidden = false;
    const left = Math.min(event.clientX, innerWidth - card.offsetWidth - 10);
    const below = event.clientY + 18 + card.offsetHeight < innerHeight;
    card.style.left = `${Math.max(6, left)}px`;
    card.style.top = `${below ? event.clientY + 18 : Math.max(6, event.clientY - card.offsetHeight - 12)}px`;
  }, 250);
});
text.addEventListener('mouseleave', () => { clearTimeout(hoverTimer); $('hover').hidden = true; });

/** As much Markdown as the compiler writes. */
function markdown(source) {
  const inline = (s) => escape_(s).replace(/`([^`]+)`/g, '<code>$1</code>').replace(/\*\*([^*]+)\*\*/g, '<b>$1</b>');
  const out = [];
  const lines = source.split('\n');
  for (let i = 0; i < lines.length; i++) {
    if (lines[i].startsWith('```')) {
      const from = ++i;
      while (i < lines.length && !lines[i].startsWith('```')) i++;
      out.push(`<pre>${escape_(lines.slice(from, i).join('\n'))}</pre>`);
    } else if (lines[i].startsWith('|')) {
      const rows = [];
      while (i < lines.length && lines[i].startsWith('|')) rows.push(lines[i++]);
      i--;
      const cells = (r, tag) => `<tr>${r.split('|').slice(1, -1).map((c) => `<${tag}>${inline(c.trim())}</${tag}>`).join('')}</tr>`;
      out.push(`<table>${cells(rows[0], 'th')}${rows.slice(2).map((r) => cells(r, 'td')).join('')}</table>`);
    } else if (lines[i].startsWith('- ')) {
      const items = [];
      while (i < lines.length && lines[i].startsWith('- ')) items.push(lines[i++].slice(2));
      i--;
      out.push(`<ul>${items.map((x) => `<li>${inline(x)}</li>`).join('')}</ul>`);
    } else if (lines[i].startsWith('#')) out.push(`<p><b>${inline(lines[i].replace(/^#+ /, ''))}</b></p>`);
    else if (lines[i].trim()) out.push(`<p>${inline(lines[i])}</p>`);
  }
  return out.join('');
}

// ── completion ──────────────────────────────────────────────────────────────────────────────────

let offered = [], chosen = 0, offeredAt = -1;

function complete() {
  const at = text.selectionStart;
  const word = /[A-Za-z_0-9]*$/.exec(text.value.slice(0, at))[0].toLowerCase();
  const found = ask('textDocument/completion', { textDocument: document_, position: place(at) }) ?? [];
  offered = found.filter((c) => c.label.toLowerCase().replace(/^.*\./, '').startsWith(word) || c.label.toLowerCase().startsWith(word)).slice(0, 40);
  chosen = 0;
  offeredAt = at;
  if (!offered.length || (offered.length === 1 && offered[0].label === word)) return dismiss();
  const { line, character } = place(at);
  const list = $('complete');
  list.hidden = false;
  list.style.left = `${10 + (character - word.length) * characterWidth()}px`;
  list.style.top = `${10 + (line + 1) * 20}px`;
  list.replaceChildren(...offered.map((c, i) => {
    const item = document.createElement('li');
    item.setAttribute('role', 'option');
    item.innerHTML = `<span>${escape_(c.label)}</span><small>${escape_(c.detail ?? '')}</small>`;
    item.onmousedown = (event) => { event.preventDefault(); accept(i); };
    return item;
  }));
  select(0);
}

function select(i) {
  chosen = (i + offered.length) % offered.length;
  [...$('complete').children].forEach((item, k) => item.setAttribute('aria-selected', String(k === chosen)));
  $('complete').children[chosen]?.scrollIntoView({ block: 'nearest' });
}
function accept(i) {
  if (text.selectionStart !== offeredAt) return dismiss();
  const { range, newText } = offered[i].textEdit;
  const lines = starts();
  replace(offset(lines, range.start), text.selectionStart, newText);
  dismiss();
  changed();
}
function dismiss() { $('complete').hidden = true; offered = []; }

// ── keys and buttons ────────────────────────────────────────────────────────────────────────────

text.addEventListener('input', (event) => {
  if (ours) return;
  changed();
  reveal();
  if (event.inputType?.startsWith('insert') && /[A-Za-z_.@ ]$/.test(text.value.slice(0, text.selectionStart))) complete();
  else dismiss();
});
text.addEventListener('blur', dismiss);
text.addEventListener('mousedown', dismiss);
text.addEventListener('keyup', (event) => {
  if (/^(Arrow|Home|End|Page|Enter)/.test(event.key)) reveal();
});
text.addEventListener('keydown', (event) => {
  if (offered.length) {
    if (event.key === 'ArrowDown') return event.preventDefault(), select(chosen + 1);
    if (event.key === 'ArrowUp') return event.preventDefault(), select(chosen - 1);
    if (event.key === 'Tab' || (event.key === 'Enter' && /\w$/.test(text.value.slice(0, text.selectionStart)))) return event.preventDefault(), accept(chosen);
    if (event.key === 'Escape') return event.preventDefault(), dismiss();
  }
  if (/^(ArrowLeft|ArrowRight|Home|End|Page)/.test(event.key)) dismiss();
  if (event.key === ' ' && event.ctrlKey) return event.preventDefault(), complete();
  if (event.key === 'Tab' && !event.shiftKey) {
    event.preventDefault();
    replace(text.selectionStart, text.selectionEnd, '  ');
    changed();
  }
  if (event.key === 'Enter' && !event.ctrlKey) {
    event.preventDefault();
    const line = text.value.slice(0, text.selectionStart).split('\n').pop();
    const deeper = /[{([]\s*$/.test(line) ? '  ' : '';
    replace(text.selectionStart, text.selectionEnd, `\n${/^\s*/.exec(line)[0]}${deeper}`);
    changed();
  }
  if (event.key.toLowerCase() === 'f' && event.ctrlKey && event.shiftKey) return event.preventDefault(), format();
});

function format() {
  apply(ask('textDocument/formatting', { textDocument: document_, options: { tabSize: 2, insertSpaces: true } }));
}
$('format').onclick = format;
$('fixall').onclick = () => {
  const whole = { start: { line: 0, character: 0 }, end: { line: 1e6, character: 0 } };
  const actions = ask('textDocument/codeAction', { textDocument: document_, range: whole, context: { diagnostics: [], only: ['source.fixAll'] } });
  apply(actions?.[0]?.edit.changes[MAIN]);
};
$('examples').onchange = (event) => {
  open_(library.examples.find((e) => e.name === event.target.value));
  history.replaceState(null, '', `#${encodeURIComponent(event.target.value)}`);
};
const theme = (name) => { document.documentElement.dataset.theme = name; };
$('theme').onclick = () => theme(document.documentElement.dataset.theme === 'dark' ? 'light' : 'dark');
const dark = matchMedia('(prefers-color-scheme: dark)');
dark.onchange = () => theme(dark.matches ? 'dark' : 'light');
theme(dark.matches ? 'dark' : 'light');

start().catch((error) => {
  $('note').className = 'wrong';
  $('note').textContent = `The compiler could not be started in this browser: ${error.message}`;
});
