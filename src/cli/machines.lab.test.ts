/** The recipe of docs/machines.md, without a lab: an API server and an agent here, an agent on a second machine that joins. */
import assert from 'node:assert/strict';
import { type ChildProcess, execFile, execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { stringify } from 'yaml';
import { ScratchNamespaces } from '../kernel/testing/scratch.ts';
import { eventually } from '../lab/testing/pod-lab.ts';

const exec = promisify(execFile);
const HOME = path.join(import.meta.dirname, '../..');
const WEFT = path.join(HOME, 'weft');
const PATIENCE_MS = 30_000;

interface Machine {
  name: string;
  ns: string;
  address: string;
  folder: string;
  agent?: ChildProcess;
}

interface CniResult {
  ips: Array<{ address: string }>;
}

describe('two machines', { concurrency: false }, () => {
  const scratch = new ScratchNamespaces('mach');
  const folder = mkdtempSync(path.join(tmpdir(), 'weft-machines-'));
  const machines: Machine[] = [];
  const started: ChildProcess[] = [];
  const dataDir = path.join(folder, 'apiserver');

  const machine = (name: string): Machine => machines.find((each) => each.name === name)!;
  /** In the network namespace of a machine, with the whole environment of this one. */
  const on = (ns: string, ...argv: string[]): Promise<{ stdout: string }> =>
    exec('nsenter', [`--net=${ns}`, ...argv], { timeout: PATIENCE_MS });

  /** A program that goes on; its output is in a file. */
  function start({ ns }: Machine, name: string, ...argv: string[]): ChildProcess {
    const child = spawn('nsenter', [`--net=${ns}`, ...argv], { stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (output += chunk));
    child.once('exit', (code) => {
      if (code) process.stderr.write(`${name} ended with ${code}:\n${output}\n`);
    });
    started.push(child);
    return child;
  }

  function startAgent(at: Machine): void {
    at.agent = start(at, `agent ${at.name}`, WEFT, 'agent', '--config', path.join(at.folder, 'agent.yaml'));
  }

  async function join(name: string): Promise<void> {
    const at = machine(name);
    const kubeconfig = path.join(at.folder, 'kubeconfig');
    mkdirSync(at.folder);
    const server = 'https://192.0.2.1:6443';
    const made = await exec(WEFT, [
      'join-config',
      '--data-dir',
      dataDir,
      '--server',
      server,
      '--node',
      name,
      '--out',
      kubeconfig,
    ]);
    assert.match(made.stdout, new RegExp(`kubeconfig: ${kubeconfig}`));
    writeFileSync(
      path.join(at.folder, 'agent.yaml'),
      stringify({
        nodeName: name,
        kubeconfig,
        stateDir: path.join(at.folder, 'state'),
        cni: {
          socket: path.join(at.folder, 'cni.sock'),
          binDir: path.join(at.folder, 'bin'),
          confDir: path.join(at.folder, 'net.d'),
          spoolDir: path.join(at.folder, 'spool'),
        },
      }),
    );
    startAgent(at);
    await eventually<true>(`the network configuration on ${name}`, PATIENCE_MS, async () =>
      existsSync(path.join(at.folder, 'net.d/10-weft.conflist')) ? true : { not: 'there' },
    );
  }

  /** As podman or containerd would: the installed plugin with the installed configuration. */
  async function cni(at: Machine, command: 'ADD' | 'DEL' | 'STATUS', ns = ''): Promise<CniResult> {
    const file = path.join(at.folder, 'net.d/10-weft.conflist');
    const { name, cniVersions, plugins } = JSON.parse(readFileSync(file, 'utf8'));
    const child = exec('nsenter', [`--net=${at.ns}`, path.join(at.folder, 'bin/weft-cni')], {
      env: {
        CNI_COMMAND: command,
        ...(ns && { CNI_CONTAINERID: path.basename(ns), CNI_NETNS: ns, CNI_IFNAME: 'eth0' }),
        CNI_PATH: path.join(at.folder, 'bin'),
        PATH: process.env.PATH,
      },
    });
    child.child.stdin!.end(JSON.stringify({ ...plugins[0], name, cniVersion: cniVersions.at(-1) }));
    const { stdout } = await child;
    return stdout ? (JSON.parse(stdout) as CniResult) : { ips: [] };
  }

  before(() => {
    for (const [name, address] of [
      ['one', '192.0.2.1'],
      ['two', '192.0.2.2'],
    ] as const) {
      machines.push({ name, address, ns: scratch.create(), folder: path.join(folder, name) });
    }
    const [one, two] = machines as [Machine, Machine];
    execFileSync('ip', [
      '-n',
      path.basename(one.ns),
      'link',
      'add',
      'eth0',
      'type',
      'veth',
      'peer',
      'name',
      'eth0',
      'netns',
      path.basename(two.ns),
    ]);
    for (const [i, { ns, address }] of machines.entries()) {
      const lines = [
        `addr add ${address}/24 dev eth0`,
        `addr add 2001:db8::${i + 1}/64 dev eth0 nodad`,
        'link set lo up',
        'link set eth0 up',
        'route add default via 192.0.2.254',
        'route add default via 2001:db8::fe',
      ];
      execFileSync('ip', ['-n', path.basename(ns), '-batch', '-'], { input: `${lines.join('\n')}\n` });
    }
  });
  after(async () => {
    for (const child of started) child.kill('SIGKILL');
    scratch.remove();
    rmSync(folder, { recursive: true, force: true });
  });

  test('the first machine: API server and agent', async () => {
    const one = machine('one');
    start(
      one,
      'apiserver',
      WEFT,
      'apiserver',
      '--data-dir',
      dataDir,
      '--listen',
      '192.0.2.1:6443',
      '--advertise',
      '192.0.2.1',
    );
    await eventually<true>('the administrator’s kubeconfig', PATIENCE_MS, async () =>
      existsSync(path.join(dataDir, 'admin.kubeconfig')) ? true : { not: 'there' },
    );
    await join('one');
  });

  test('a second machine joins; both are Ready', async () => {
    await join('two');
    const program = `
      import { HttpApiClient } from '${HOME}/src/informers/http-client.ts';
      import { loadKubeconfig } from '${HOME}/src/informers/kubeconfig.ts';
      import { NODES } from '${HOME}/src/api/client.ts';
      const client = new HttpApiClient(await loadKubeconfig('${dataDir}/admin.kubeconfig'));
      const { items } = await client.list(NODES);
      console.log(items.map(({ metadata, spec, status }) => metadata.name + ' ' + spec.podCIDRs.length + ' ' +
        status.conditions.find(({ type }) => type === 'Ready')?.status).sort().join(', '));
      client.close();`;
    await eventually<true>('both nodes to be Ready', PATIENCE_MS, async () => {
      const { stdout } = await on(machine('two').ns, process.execPath, '--input-type=module', '-e', program);
      return stdout === 'one 2 True, two 2 True\n' ? true : { not: stdout };
    });
  });

  const pods: Array<{ at: Machine; ns: string; ips: string[] }> = [];
  async function everyPair(): Promise<void> {
    for (const from of pods) {
      for (const ip of pods.flatMap(({ ips }) => ips)) await on(from.ns, 'ping', '-nqc1', '-W2', ip);
    }
  }

  test('containers on both, attached by the installed plugin, reach each other', async () => {
    for (const at of [machine('one'), machine('one'), machine('two')]) {
      const ns = scratch.create();
      const { ips } = await cni(at, 'ADD', ns);
      pods.push({ at, ns, ips: ips.map(({ address }) => address.split('/')[0]!) });
    }
    assert.equal(new Set(pods.flatMap(({ ips }) => ips)).size, 6);
    await eventually<true>('every pair', PATIENCE_MS, () =>
      everyPair().then(
        () => true as const,
        (error) => ({ not: String(error) }),
      ),
    );
  });

  test('agents end when they are asked to, and what they made goes on; started again, they take it over', async () => {
    for (const { agent } of machines) {
      const ended = new Promise((resolve) => agent!.once('exit', resolve));
      agent!.kill('SIGTERM');
      assert.equal(await ended, 0);
    }
    await everyPair();
    for (const at of machines) startAgent(at);
    for (const at of machines) {
      await eventually<true>(`the agent of ${at.name}`, PATIENCE_MS, () =>
        cni(at, 'STATUS').then(
          () => true as const,
          (error) => ({ not: String(error) }),
        ),
      );
    }
    await everyPair();
    for (const { at, ns } of pods) await cni(at, 'DEL', ns);
    for (const { name, ns } of machines) {
      await eventually<true>(`the links of ${name} to go`, PATIENCE_MS, async () => {
        const { stdout } = await on(ns, 'ip', '-o', 'link', 'show', 'type', 'veth');
        return / weft[0-9a-f]+@/.test(stdout) ? { not: stdout } : true;
      });
    }
  });
});
