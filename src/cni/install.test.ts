import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { installConflist, installPlugin, removeConflist } from './install.ts';

const folder = mkdtempSync(path.join(os.tmpdir(), 'weft-install-'));
after(() => rmSync(folder, { recursive: true }));

test('the plugin is replaced whole, and left alone when it is the same', () => {
  const source = path.join(folder, 'built');
  const binDir = path.join(folder, 'opt/cni/bin');
  writeFileSync(source, 'one');
  const target = installPlugin(source, binDir);
  assert.equal(target, path.join(binDir, 'weft-cni'));
  assert.equal(statSync(target).mode & 0o777, 0o755);
  const { ino } = statSync(target);
  installPlugin(source, binDir);
  assert.equal(statSync(target).ino, ino);
  writeFileSync(source, 'two');
  installPlugin(source, binDir);
  assert.notEqual(statSync(target).ino, ino);
  assert.equal(readFileSync(target, 'utf8'), 'two');
  assert.deepEqual(readdirSync(binDir), ['weft-cni']);
  assert.throws(() => installPlugin(path.join(folder, 'none'), binDir), { code: 'WEFT_CNI_INSTALL_FAILED' });
});

test('the configuration names paths only where they are not the usual ones', () => {
  const confDir = path.join(folder, 'etc/cni/net.d');
  const usual = { socket: '/run/weft/cni.sock', spoolDir: '/var/lib/weft/cni-spool' };
  const file = installConflist(confDir, usual);
  assert.deepEqual(JSON.parse(readFileSync(file, 'utf8')), {
    cniVersion: '1.0.0',
    cniVersions: ['0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'],
    name: 'weft',
    plugins: [{ type: 'weft-cni', capabilities: { ips: true, mac: true } }],
  });
  installConflist(confDir, { ...usual, network: 'other', socket: '/tmp/s' });
  const { name, plugins } = JSON.parse(readFileSync(file, 'utf8'));
  assert.deepEqual([name, plugins[0].weftSocket, plugins[0].weftSpool], ['other', '/tmp/s', undefined]);
  assert.deepEqual(readdirSync(confDir), ['10-weft.conflist']);
  removeConflist(confDir);
  removeConflist(confDir);
  assert.ok(!existsSync(file));
});
