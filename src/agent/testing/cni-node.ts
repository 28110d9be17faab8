/** A node for tests of the CNI path: a namespace, the agent process in it, and the plugin executed as runtimes do. */
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { ScratchNamespaces } from '../../kernel/testing/scratch.ts';

const home = path.join(import.meta.dirname, '../../..');
export const SHIM = path.join(home, 'build/weft-cni');

export interface CniExec {
  code: number | null;
  /** Parsed stdout, undefined when it was empty. */
  // biome-ignore lint/suspicious/noExplicitAny: tests look into it as they please
  output: any;
}

export class CniNode {
  readonly scratch: ScratchNamespaces;
  readonly ns: string;
  readonly folder: string;
  /** What the agent has printed since it was started last. */
  lines: Array<Record<string, unknown>> = [];
  #agent: ChildProcess | undefined;
  readonly #options: string[];

  constructor(label: string, options: { cooldown?: number; podCIDRs?: string[] } = {}) {
    execFileSync('sh', [path.join(home, 'scripts/build.sh')]);
    this.scratch = new ScratchNamespaces(label);
    this.ns = this.scratch.create();
    this.folder = mkdtempSync(path.join(os.tmpdir(), `weft-${label}-`));
    this.#options = [String(options.cooldown ?? 0), ...(options.podCIDRs ?? [])];
    for (const sysctl of ['net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1']) {
      this.inNs(this.ns, 'sysctl', '-qw', sysctl);
    }
    for (const address of ['10.99.0.1/32', 'fd99::1/128']) {
      this.inNs(this.ns, 'ip', 'addr', 'add', address, 'dev', 'lo');
    }
  }

  get socket(): string {
    return path.join(this.folder, 'cni.sock');
  }

  get spool(): string {
    return path.join(this.folder, 'spool');
  }

  get pid(): number {
    return this.#agent?.pid ?? 0;
  }

  inNs(ns: string, ...command: string[]): string {
    return execFileSync('ip', ['netns', 'exec', path.basename(ns), ...command], { encoding: 'utf8' });
  }

  async start(): Promise<void> {
    const agent = spawn(
      'nsenter',
      [
        `--net=${this.ns}`,
        process.execPath,
        '--disable-warning=ExperimentalWarning',
        path.join(import.meta.dirname, 'cni-agent.ts'),
        this.folder,
        ...this.#options,
      ],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    );
    this.#agent = agent;
    this.lines = [];
    await new Promise<void>((resolve, reject) => {
      agent.once('close', (code, signal) => reject(new Error(`the agent ended: ${code ?? signal}`)));
      createInterface({ input: agent.stdout }).on('line', (line) => {
        this.lines.push(JSON.parse(line));
        if ('ready' in JSON.parse(line)) resolve();
      });
    });
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    const agent = this.#agent;
    if (!agent) return;
    this.#agent = undefined;
    const closed = new Promise((resolve) => agent.once('close', resolve));
    agent.kill(signal);
    await closed;
  }

  /** Execute the plugin. */
  exec(command: string, env: Record<string, string>, conf: object = {}): Promise<CniExec> {
    return new Promise((resolve, reject) => {
      const child = spawn(SHIM, [], {
        env: {
          CNI_COMMAND: command,
          CNI_PATH: path.dirname(SHIM),
          WEFT_CNI_SOCKET: this.socket,
          WEFT_CNI_SPOOL: this.spool,
          ...env,
        },
        stdio: ['pipe', 'pipe', 'inherit'],
      });
      let stdout = '';
      child.stdout.on('data', (chunk) => {
        stdout += chunk;
      });
      child.once('error', reject);
      child.once('close', (code) =>
        resolve({ code, output: stdout === '' ? undefined : JSON.parse(stdout) }),
      );
      child.stdin.on('error', () => {});
      child.stdin.end(JSON.stringify({ cniVersion: '1.1.0', name: 'weft', type: 'weft-cni', ...conf }));
    });
  }

  env(containerId: string, netns: string, ifname = 'eth0'): Record<string, string> {
    return { CNI_CONTAINERID: containerId, CNI_NETNS: netns, CNI_IFNAME: ifname };
  }

  /** ADD that must succeed; the result. */
  async add(containerId: string, netns: string, conf: object = {}, env: Record<string, string> = {}) {
    const { code, output } = await this.exec('ADD', { ...this.env(containerId, netns), ...env }, conf);
    assert.equal(code, 0, JSON.stringify(output));
    return output;
  }

  async del(containerId: string, netns = '', ifname = 'eth0'): Promise<void> {
    const { code, output } = await this.exec('DEL', this.env(containerId, netns, ifname));
    assert.deepEqual([code, output], [0, undefined]);
  }

  async close(): Promise<void> {
    await this.stop('SIGKILL');
    rmSync(this.folder, { recursive: true, force: true });
    this.scratch.remove();
  }
}
