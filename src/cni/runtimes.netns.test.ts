/**
 * Real container runtimes executing the real plugin: podman (runc) and containerd, as Debian packages them. The plugin
 * speaks to an agent in a namespace of the test's own, so the machine's network is not touched.
 */
import assert from 'node:assert/strict';
import { type SpawnSyncReturns, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { CniNode, SHIM } from '../agent/testing/cni-node.ts';
import { ipJson, until } from '../kernel/testing/scratch.ts';
import { installConflist } from './install.ts';

const has = (program: string): boolean =>
  (process.env.PATH ?? '').split(':').some((folder) => existsSync(path.join(folder, program)));
const lacks = (...programs: string[]): string | false => {
  const missing = programs.filter((program) => !has(program));
  return missing.length > 0 && `not installed: ${missing.join(', ')}`;
};

let node: CniNode;
let folder: string;
let rootfs: string;

before(async () => {
  node = new CniNode('runtime');
  await node.start();
  folder = mkdtempSync(path.join(os.tmpdir(), 'weft-runtime-'));
  // An image without a registry: an empty root into which the machine's /usr is mounted.
  rootfs = path.join(folder, 'rootfs');
  for (const name of ['usr', 'etc', 'proc', 'sys', 'dev', 'tmp', 'run', 'var/tmp']) {
    mkdirSync(path.join(rootfs, name), { recursive: true });
  }
  for (const name of ['bin', 'sbin', 'lib', 'lib64']) symlinkSync(`usr/${name}`, path.join(rootfs, name));
  installConflist(path.join(folder, 'net.d'), { socket: node.socket, spoolDir: node.spool });
});
after(async () => {
  await node.close();
  // podman binds its storage onto itself, and a clean-up process of its own may still be about.
  await until('the folder is gone', () => {
    const mounts = readFileSync('/proc/self/mounts', 'utf8').split('\n');
    for (const mount of mounts.map((line) => line.split(' ')[1]!).reverse()) {
      if (mount?.startsWith(`${folder}/`)) spawnSync('umount', ['-l', mount]);
    }
    spawnSync('rm', ['-rf', folder]);
    return !existsSync(folder);
  });
});

const pods = (): string[] =>
  ipJson(node.ns, 'link')
    .map((link) => String(link.ifname))
    .filter((name) => name.startsWith('weft'));

/** What runs in the container: its addresses, and a ping to the node. */
const SCRIPT = 'ip -br addr show eth0; ping -c1 -W2 -n 10.99.0.1 && ping -c1 -W2 -n fd99::1 && echo REACHED';

function assertAttached({ status, stdout, stderr }: SpawnSyncReturns<string>): void {
  assert.equal(status, 0, `${stdout}${stderr}`);
  assert.match(stdout, /^eth0@\S+ +UP +10\.88\.\d+\.\d+\/32 fd88::[0-9a-f:]+\/128/m);
  assert.match(stdout, /^REACHED$/m);
}

test('podman', { skip: lacks('podman', 'runc') }, async () => {
  const config = path.join(folder, 'containers.conf');
  writeFileSync(
    config,
    `[containers]
default_ulimits=["nofile=1024:4096","nproc=4096:4096"]
[engine]
cgroup_manager="cgroupfs"
events_logger="file"
runtime="runc"
[network]
network_backend="cni"
cni_plugin_dirs=["${path.dirname(SHIM)}"]
network_config_dir="${folder}/net.d"
default_network="weft"
`,
  );
  const podman = (...args: string[]): SpawnSyncReturns<string> =>
    spawnSync(
      'podman',
      ['--root', `${folder}/root`, '--runroot', `${folder}/run`, '--tmpdir', `${folder}/tmp`, ...args],
      { encoding: 'utf8', timeout: 60_000, env: { ...process.env, CONTAINERS_CONF: config } },
    );
  const run = ['run', '--network', 'weft', '-v', '/usr:/usr:ro'];
  assertAttached(podman(...run, '--rm', '--rootfs', rootfs, '/bin/sh', '-c', SCRIPT));
  await until('podman has sent DEL', () => pods().length === 0);

  // Asked for by name, and seen by podman's own inspection.
  const asked = podman(
    ...run,
    '-d',
    '--name',
    'w',
    '--ip',
    '10.88.9.9',
    '--mac-address',
    '02:00:00:00:99:09',
    '--rootfs',
    rootfs,
    '/bin/sleep',
    '60',
  );
  assert.equal(asked.status, 0, asked.stderr);
  const [info] = JSON.parse(podman('inspect', 'w').stdout);
  const seen = info.NetworkSettings.Networks.weft;
  assert.deepEqual([seen.IPAddress, seen.MacAddress], ['10.88.9.9', '02:00:00:00:99:09']);
  assert.equal(pods().length, 1);
  const removed = podman('rm', '-f', '-t', '0', 'w');
  assert.equal(removed.status, 0, removed.stderr);
  await until('its link is gone', () => pods().length === 0);
});

test('containerd, by `ctr run --cni`', { skip: lacks('containerd', 'ctr', 'runc') }, async () => {
  const dir = path.join(folder, 'containerd');
  mkdirSync(dir);
  const address = path.join(dir, 'c.sock');
  const config = path.join(dir, 'config.toml');
  const off = ['cri', 'aufs', 'btrfs', 'devmapper', 'zfs'].map(
    (name) => `"io.containerd.snapshotter.v1.${name}"`,
  );
  writeFileSync(
    config,
    `version = 2
root = "${dir}/root"
state = "${dir}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", ${off.join(', ')}]
[grpc]
address = "${address}"
`,
  );
  const daemon = spawn('containerd', ['--config', config], { stdio: 'ignore' });
  const closed = new Promise((resolve) => daemon.once('close', resolve));
  try {
    const ctr = (...args: string[]): SpawnSyncReturns<string> =>
      spawnSync('ctr', ['-a', address, ...args], { encoding: 'utf8', timeout: 60_000 });
    await until('containerd answers', () => ctr('version').status === 0, 20_000);
    // ctr knows only the usual folders: they are ours in a mount namespace of its own.
    const setup = `mount --bind "${folder}/net.d" /etc/cni/net.d && mount -t tmpfs none /opt && mkdir -p /opt/cni/bin && cp "${SHIM}" /opt/cni/bin/`;
    const run = `exec ctr -a "${address}" run --rm --cni --rootfs --mount type=bind,src=/usr,dst=/usr,options=rbind:ro "${rootfs}" weft-test /bin/sh -c '${SCRIPT}'`;
    mkdirSync('/etc/cni/net.d', { recursive: true });
    assertAttached(
      spawnSync('unshare', ['--mount', 'sh', '-c', `${setup} && ${run}`], {
        encoding: 'utf8',
        timeout: 60_000,
      }),
    );
    await until('ctr has sent DEL', () => pods().length === 0);
  } finally {
    daemon.kill('SIGTERM');
    const stubborn = setTimeout(() => daemon.kill('SIGKILL'), 5000);
    await closed;
    clearTimeout(stubborn);
  }
});
