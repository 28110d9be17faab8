/**
 * The daemon of a lab: makes its machines, keeps the API server and the agents running, schedules and runs its pods. One per lab;
 * whatever it starts outlives it, and the next daemon takes it over.
 *
 * Order at start, as much of it side by side as can be:
 *
 *   namespaces and cables ─┬─ API server ─┬─ scheduler, pod runner
 *   certificates ──────────┘              │
 *   nodes (mount, UTS) ──── agents ───────┘
 */
import { closeSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, Socket } from 'node:net';
import path from 'node:path';
import { AGENT_NODE_FLAGS } from '../agent/node-flags.ts';
import { NODES, PODS } from '../api/client.ts';
import type { AgentConfig } from '../api/config.ts';
import { isNotFound } from '../api/errors.ts';
import { objectKey } from '../api/object-key.ts';
import type { Node, Pod } from '../api/types.ts';
import { ensureCa, issueClient, kubeconfigText } from '../apiserver/pki.ts';
import { systemClock } from '../base/clock.ts';
import { messageOf, WeftError } from '../base/errors.ts';
import { createLogger, type Logger } from '../base/log.ts';
import { EventRecorder } from '../controllers/event-recorder.ts';
import { apiTables } from '../informers/api-tables.ts';
import { HttpApiClient } from '../informers/http-client.ts';
import { openKernel } from '../kernel/kernel.ts';
import { NODE_FEATURES, orMissingFeature } from '../kernel/require-features.ts';
import type { Kernel } from '../kernel/types.ts';
import type { SourcedTable } from '../state/table-source.ts';
import { type Progress, type Request, serveControl } from './control.ts';
import { ensureMounts, ensureNodeNamespaces, unbindBelow } from './namespaces.ts';
import { ensureNode, ensureRouter, freePort } from './network.ts';
import { HOME, type LabPaths, labPaths } from './paths.ts';
import { type PodRow, PodRunner } from './pods/pod-runner.ts';
import { SandboxManager } from './pods/sandbox.ts';
import { enterArgs, findProcesses, type LabProcess, netnsOf, signal } from './processes.ts';
import { measureReachability, probePods, type Reachability } from './reachability.ts';
import { type LabRecord, mustReadRecord, writeRecord } from './record.ts';
import { type NodeRow, Scheduling } from './scheduling.ts';
import { Supervised } from './supervisor.ts';
import { nodeNumber, type Topology, topologyOf } from './topology.ts';

const MAIN = path.join(HOME, 'src/cli/main.ts');
const NODE_ARGS = [process.execPath, '--disable-warning=ExperimentalWarning'];

/** What a lab's machines and cables are made of. */
const LAB_FEATURES = [...NODE_FEATURES, 'bridge', 'ipv6'] as const;

/** What the daemon tells of itself. */
export interface DaemonStatus {
  pid: number;
  record: LabRecord;
  processes: Array<{ role: string; pid?: number; restarts: number }>;
  pods: number;
}

/** Runs until SIGTERM. @throws WEFT_LAB_DAEMON_FAILED when the lab has a daemon already, WEFT_LAB_NOT_FOUND */
export async function runDaemon(lab: string): Promise<void> {
  const lock = await holdLock(lab);
  const daemon = new LabDaemon(labPaths(lab), createLogger(`lab/${lab}`));
  const stop = new Promise<void>((resolve) => {
    process.once('SIGTERM', () => resolve());
    process.once('SIGINT', () => resolve());
  });
  try {
    await daemon.start();
    await stop;
  } finally {
    await daemon.close();
    lock.close();
  }
}

/**
 * A socket name in the abstract namespace (unix(7)) is a lock that no crash leaves behind.
 * @throws WEFT_LAB_DAEMON_FAILED
 */
async function holdLock(lab: string): Promise<{ close(): void }> {
  const server = createServer((socket) => socket.destroy());
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) =>
      reject(
        error.code === 'EADDRINUSE'
          ? new WeftError('WEFT_LAB_DAEMON_FAILED', `lab ${lab} has a daemon already`)
          : error,
      ),
    );
    server.listen(`\0weft-lab/${lab}`, () => resolve());
  });
  return server;
}

class LabDaemon {
  readonly #paths: LabPaths;
  readonly #log: Logger;
  #record: LabRecord;
  #topology: Topology;
  #kernel!: Kernel;
  #client!: HttpApiClient;
  #pods!: SourcedTable<PodRow>;
  #nodes!: SourcedTable<NodeRow>;
  #runner!: PodRunner;
  #scheduling!: Scheduling;
  readonly #supervised = new Map<string, Supervised>();
  #listening: number[] = [];
  /** Resolves when the API answers and pods are run; rejects with why not. */
  readonly #up = Promise.withResolvers<void>();
  readonly #progress: string[] = [];
  readonly #listeners = new Set<Progress>();
  readonly #began = Date.now();
  /** Changes of the set of nodes come one after another. */
  #nodeChanges: Promise<unknown> = Promise.resolve();
  readonly #closers: Array<() => Promise<unknown> | unknown> = [];

  constructor(paths: LabPaths, log: Logger) {
    this.#paths = paths;
    this.#log = log;
    this.#record = mustReadRecord(paths);
    this.#topology = topologyOf(this.#record.spec, this.#record.nodes);
    this.#up.promise.catch(() => {}); // whoever asks is told
  }

  async start(): Promise<void> {
    const control = await serveControl(this.#paths.socket, (request, progress) =>
      this.#control(request, progress),
    );
    this.#closers.push(() => control.close());
    try {
      await this.#start();
      this.#up.resolve();
    } catch (cause) {
      const error = this.#kernel ? await orMissingFeature(this.#kernel, LAB_FEATURES, cause) : cause;
      this.#log.error({ error: messageOf(error) }, 'the lab cannot be started');
      this.#up.reject(error);
    }
  }

  async #start(): Promise<void> {
    const paths = this.#paths;
    const found = findProcesses(paths.lab);
    const pki = path.join(paths.apiData, 'pki');
    // Certificates take time on the first start; the network is made meanwhile.
    const ca = ensureCa(pki);
    ca.catch(() => {});
    const [kernel] = await Promise.all([openKernel(), ensureMounts(paths)]);
    this.#kernel = kernel;
    this.#closers.push(() => kernel[Symbol.asyncDispose]());
    await this.#prune();
    await ensureRouter(kernel, this.#topology, paths);
    this.#say('physical network made');
    const authority = await ca;
    await this.#startApiServer(found);
    const nodes = this.#topology.nodes.map((node) => this.#makeNode(node.name));
    const admin = await issueClient(pki, { user: 'weft-lab', groups: ['system:masters'] });
    this.#client = new HttpApiClient(
      {
        server: `https://127.0.0.1:${this.#record.hostPort}`,
        ca: authority.cert,
        ...admin,
        namespace: 'default',
      },
      { userAgent: 'weft-lab' },
    );
    this.#closers.push(() => this.#client.close());
    await Promise.all(nodes);
    this.#say(`${nodes.length} nodes made: network, mount and UTS namespaces`);
    await Promise.all(this.#topology.nodes.map((node) => this.#startAgent(node.name, found)));
    this.#startOutside(found);
    await this.#apiAnswers();
    this.#say(`API server answers at https://127.0.0.1:${this.#record.hostPort}`);
    await this.#runPods();
  }

  /** Tell everyone who waits, and whoever asks later. */
  #say(text: string): void {
    const line = `${text} (${Date.now() - this.#began} ms)`;
    this.#log.info(text);
    this.#progress.push(line);
    for (const listener of this.#listeners) listener(line);
  }

  /** Namespaces of nodes that the record does not know: they were being removed. */
  async #prune(): Promise<void> {
    const { lab, netnsPrefix } = this.#paths;
    for (const name of netnsOf(lab)) {
      const node = name.slice(netnsPrefix.length);
      if (/^node-\d+$/.test(node) && !this.#record.nodes.includes(node)) await this.#destroyNode(node);
    }
  }

  // --- processes ---

  #supervise(
    role: string,
    argv: string[],
    found: LabProcess[],
    more: { fds?: () => Promise<number[]> } = {},
  ): Supervised {
    const supervised = new Supervised({
      lab: this.#paths.lab,
      role,
      argv,
      log: `${this.#paths.logs}/${role.replaceAll('/', '-')}.log`,
      adopt: found.find((process) => process.role === role && process.command.includes(argv.at(-1)!)),
      clock: systemClock,
      logger: this.#log,
      ...more,
    });
    this.#supervised.set(role, supervised);
    return supervised;
  }

  async #startApiServer(found: LabProcess[]): Promise<void> {
    const { lab, apiData, kubeconfig, netNetns } = this.#paths;
    const { api, spec } = this.#topology;
    if (this.#record.hostPort === 0) {
      this.#record = { ...this.#record, hostPort: await freePort() };
      writeRecord(this.#paths, this.#record);
    }
    const { hostPort } = this.#record;
    mkdirSync(apiData, { recursive: true, mode: 0o700 });
    this.#supervise(
      'apiserver',
      [
        ...[...NODE_ARGS, MAIN, 'apiserver', '--data-dir', apiData, '--listen-fd', '3', '--listen-fd', '4'],
        ...['--advertise', '127.0.0.1', '--advertise', api.address],
        ...spec.clusterCIDRs.flatMap((cidr) => ['--cluster-cidr', cidr]),
        ...['--server', `https://127.0.0.1:${hostPort}`, '--admin-kubeconfig', kubeconfig],
      ],
      found,
      {
        // Opened when first needed, and held: while the server restarts, connections wait in their backlog.
        fds: async () => {
          if (this.#listening.length === 0) {
            this.#listening = await Promise.all([
              this.#kernel.listenTcp('', '127.0.0.1', hostPort),
              this.#kernel.listenTcp(netNetns, api.address, api.port),
            ]);
            this.#log.debug({ lab, hostPort }, 'listening');
          }
          return this.#listening;
        },
      },
    );
  }

  async #startAgent(name: string, found: LabProcess[]): Promise<void> {
    const node = this.#paths.node(name);
    const { spec, api } = this.#topology;
    const config: Pick<
      AgentConfig,
      'nodeName' | 'kubeconfig' | 'clusterCIDRs' | 'nodeIPs' | 'registerNode'
    > & {
      fabric: Partial<AgentConfig['fabric']>;
    } = {
      nodeName: name,
      kubeconfig: '/var/lib/weft/kubeconfig',
      clusterCIDRs: spec.clusterCIDRs,
      nodeIPs: this.#nodeIPs(name),
      registerNode: true,
      fabric: { backend: spec.fabric },
    };
    const pki = path.join(this.#paths.apiData, 'pki');
    const [ca, client] = [
      await ensureCa(pki),
      await issueClient(pki, { user: `system:node:${name}`, groups: ['system:nodes'] }),
    ];
    const host = api.address.includes(':') ? `[${api.address}]` : api.address;
    writeFileSync(
      node.kubeconfig,
      kubeconfigText({ server: `https://${host}:${api.port}`, ca: ca.cert, ...client }),
      { mode: 0o600 },
    );
    writeFileSync(node.agentConfig, JSON.stringify(config, undefined, 2));
    this.#supervise(
      `agent/${name}`,
      [
        ...enterArgs(node),
        ...NODE_ARGS,
        ...AGENT_NODE_FLAGS,
        MAIN,
        'agent',
        '--config',
        '/var/lib/weft/agent.json',
      ],
      found,
    );
  }

  /** The host beyond the router serves too, so that there is something to reach. */
  #startOutside(found: LabProcess[]): void {
    const server = path.join(HOME, 'src/lab/agnhost/server.ts');
    this.#supervise(
      'outside',
      [
        'nsenter',
        `--net=${this.#paths.outsideNetns}`,
        '--',
        ...NODE_ARGS,
        server,
        'netexec',
        '--http-port=8080',
        '--udp-port=8081',
      ],
      found,
    );
  }

  // --- nodes ---

  #nodeIPs(name: string): string[] {
    return this.#topology.nodes.find((node) => node.name === name)?.nodeIPs ?? [];
  }

  async #makeNode(name: string): Promise<void> {
    const node = this.#topology.nodes.find((each) => each.name === name)!;
    await ensureNode(this.#kernel, node, this.#topology, this.#paths);
    const hosts = [
      '127.0.0.1 localhost',
      '::1 localhost ip6-localhost',
      ...this.#topology.nodes.flatMap((each) => each.nodeIPs.map((ip) => `${ip} ${each.name}`)),
    ];
    await ensureNodeNamespaces(name, this.#paths.node(name), `${hosts.join('\n')}\n`);
  }

  async #addNode(name: string): Promise<void> {
    if (this.#record.nodes.includes(name))
      throw new WeftError('WEFT_BAD_CONFIG', `the lab has a node ${name} already`);
    nodeNumber(name);
    this.#setNodes([...this.#record.nodes, name]);
    await this.#makeNode(name);
    await this.#startAgent(name, []);
  }

  /** As if the machine were unplugged and thrown away; then the API is told. */
  async #removeNode(name: string): Promise<void> {
    if (!this.#record.nodes.includes(name))
      throw new WeftError('WEFT_BAD_CONFIG', `the lab has no node ${name}`);
    const agent = this.#supervised.get(`agent/${name}`);
    this.#supervised.delete(`agent/${name}`);
    await agent?.stop(0);
    for (const { pod } of this.#pods.table.values()) {
      if (pod.spec.nodeName !== name) continue;
      const ref = { name: pod.metadata.name, namespace: pod.metadata.namespace ?? 'default' };
      await this.#client.delete(PODS, ref, { gracePeriodSeconds: 0 }).catch(ignoreNotFound);
    }
    await this.#runner.drained(name);
    this.#setNodes(this.#record.nodes.filter((each) => each !== name));
    await this.#client.delete(NODES, { name }).catch(ignoreNotFound);
    await this.#destroyNode(name);
  }

  #setNodes(nodes: string[]): void {
    this.#record = { ...this.#record, nodes };
    writeRecord(this.#paths, this.#record);
    this.#topology = topologyOf(this.#record.spec, nodes);
  }

  async #destroyNode(name: string): Promise<void> {
    const node = this.#paths.node(name);
    for (const found of findProcesses(this.#paths.lab)) {
      if (found.role === `agent/${name}`) signal(found, 'SIGKILL');
    }
    // The cable first: the kernel removes the links of a namespace some time after it, and the next node may have the same name.
    await this.#kernel
      .run([{ ns: this.#paths.netNetns, ops: [{ op: 'link.delete', name }] }])
      .catch(() => {});
    await this.#kernel.netnsDelete(node.netns);
    await unbindBelow(node.folder);
    rmSync(node.folder, { recursive: true, force: true });
    rmSync(path.dirname(node.state), { recursive: true, force: true });
  }

  // --- the API and what works through it ---

  async #apiAnswers(): Promise<void> {
    const end = Date.now() + 30_000;
    for (;;) {
      try {
        await this.#client.list(NODES, { limit: 1 });
        return;
      } catch (error) {
        if (Date.now() > end) {
          throw new WeftError('WEFT_LAB_NOT_READY', `the API server does not answer: ${messageOf(error)}`, {
            cause: error,
            hint: `Read ${this.#paths.logs}/apiserver.log.`,
          });
        }
        await systemClock.sleep(15);
      }
    }
  }

  async #runPods(): Promise<void> {
    const source = apiTables({ client: this.#client, clock: systemClock, logger: this.#log });
    this.#pods = source.open({ resource: PODS, map: (pod: Pod): PodRow => ({ key: objectKey(pod), pod }) });
    this.#nodes = source.open({
      resource: NODES,
      map: (node: Node): NodeRow => ({ key: objectKey(node), node }),
    });
    this.#closers.push(
      () => this.#pods.close(),
      () => this.#nodes.close(),
    );
    await Promise.all([this.#pods.synced, this.#nodes.synced]);
    this.#runner = new PodRunner({
      paths: this.#paths,
      client: this.#client,
      sandboxes: new SandboxManager(this.#kernel, this.#paths),
      events: this.#recorder('weft-lab'),
      clock: systemClock,
      log: this.#log,
      kernel: this.#kernel,
      hasNode: (name) => this.#record.nodes.includes(name),
      nodeIPs: (name) => this.#nodeIPs(name),
      connect: (node, ip, port) => this.#connect(node, ip, port),
    });
    await this.#runner.start(this.#pods.table);
    this.#scheduling = new Scheduling({
      pods: this.#pods.table,
      nodes: this.#nodes.table,
      client: this.#client,
      events: this.#recorder('weft-scheduler'),
      logger: this.#log,
    });
    this.#closers.push(
      () => this.#runner.close(),
      () => this.#scheduling.close(),
    );
    this.#say('scheduler and pod runner run');
  }

  #recorder(component: string): EventRecorder {
    const recorder = new EventRecorder({
      client: this.#client,
      component,
      clock: systemClock,
      logger: this.#log,
    });
    this.#closers.push(() => recorder.close());
    return recorder;
  }

  async #connect(node: string, ip: string, port: number): Promise<Socket> {
    return new Socket({ fd: await this.#kernel.connectTcp(this.#paths.node(node).netns, ip, port) });
  }

  // --- what the commands ask for ---

  async #control(request: Request, progress: Progress): Promise<unknown> {
    switch (request.op) {
      case 'status':
        return this.#status();
      case 'ready':
        return await this.#ready(request, progress);
      case 'reachability':
        await this.#up.promise;
        return await this.#reachability();
      case 'add-node':
        return await this.#changeNodes(() => this.#addNode(String(request.node)));
      case 'remove-node':
        return await this.#changeNodes(() => this.#removeNode(String(request.node)));
      default:
        throw new WeftError(
          'WEFT_BAD_CONFIG',
          `the lab's daemon knows no operation ${JSON.stringify(request.op)}`,
        );
    }
  }

  #status(): DaemonStatus {
    return {
      pid: process.pid,
      record: this.#record,
      processes: [...this.#supervised.values()].map(({ role, process: running, restarts }) => ({
        role,
        ...(running && { pid: running.pid }),
        restarts,
      })),
      pods: this.#runner?.size ?? 0,
    };
  }

  async #ready(request: Request, progress: Progress): Promise<DaemonStatus> {
    for (const line of this.#progress) progress(line);
    this.#listeners.add(progress);
    try {
      await this.#up.promise;
      if (request.probe === true) await this.#makeProbePods();
      await this.#nodesReady(Number(request.timeout ?? 30_000));
      return this.#status();
    } finally {
      this.#listeners.delete(progress);
    }
  }

  async #nodesReady(timeout: number): Promise<void> {
    const unready = (): string[] =>
      this.#record.nodes.filter((name) => {
        const conditions = this.#nodes.table.get(name)?.node.status?.conditions ?? [];
        return conditions.find(({ type }) => type === 'Ready')?.status !== 'True';
      });
    await new Promise<void>((resolve, reject) => {
      const look = (): void => {
        if (unready().length > 0) return;
        clearTimeout(timer);
        subscription[Symbol.dispose]();
        resolve();
      };
      const subscription = this.#nodes.table.subscribe(look);
      const timer = setTimeout(() => {
        subscription[Symbol.dispose]();
        reject(
          new WeftError('WEFT_LAB_NOT_READY', `not ready after ${timeout} ms: ${unready().join(', ')}`, {
            hint: `Read ${this.#paths.logs}/agent-${unready()[0]}.log.`,
          }),
        );
      }, timeout);
      look();
    });
    this.#say(`nodes ready: ${this.#record.nodes.join(', ')}`);
  }

  async #makeProbePods(): Promise<Pod[]> {
    return await probePods(this.#client, this.#topology);
  }

  async #reachability(): Promise<Reachability> {
    return await measureReachability({
      pods: await this.#makeProbePods(),
      topology: this.#topology,
      podNow: (key) => this.#pods.table.get(key)?.pod,
      connect: (node, ip, port) => this.#connect(node, ip, port),
    });
  }

  async #changeNodes(change: () => Promise<void>): Promise<void> {
    await this.#up.promise;
    const mine = this.#nodeChanges.then(change);
    this.#nodeChanges = mine.catch(() => {});
    await mine;
  }

  /** Let go of everything; what runs, runs on. */
  async close(): Promise<void> {
    for (const supervised of this.#supervised.values()) supervised.detach();
    for (const close of this.#closers.reverse()) {
      await Promise.resolve(close()).catch((error) =>
        this.#log.warn({ error: messageOf(error) }, 'while closing'),
      );
    }
    for (const fd of this.#listening) closeSync(fd);
  }
}

function ignoreNotFound(error: unknown): void {
  if (!isNotFound(error)) throw error;
}
