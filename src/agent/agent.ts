/**
 * One node, composed: kernel, API, fabric, attachments, CNI, health. Made in the order in which each can work, closed in
 * the reverse; closing leaves the kernel as it is, so traffic goes on.
 *
 *   kernel ─▶ attachments adopted ─▶ CNI answers ─▶ Node registered, all nodes heard ─▶ network set up ─▶ ADDs, Ready
 *
 * Each step that needs the API is tried until it succeeds; what needs none goes on meanwhile.
 */
import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { NODES } from '../api/client.ts';
import type { AgentConfig } from '../api/config.ts';
import type { Node, ObjectReference } from '../api/types.ts';
import { type Clock, systemClock } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';
import { type Cidr, cidrOverlaps } from '../base/ip.ts';
import type { Logger } from '../base/log.ts';
import { installConflist, installPlugin } from '../cni/install.ts';
import { attachedMarker, CniServer } from '../cni/server.ts';
import { Spool } from '../cni/spool.ts';
import { EventRecorder } from '../controllers/event-recorder.ts';
import { LINK_KINDS } from '../datapath/links/link-reconciler.ts';
import { fabricNodeOf, VTEP_MAC_ANNOTATION } from '../fabric/nodes.ts';
import { vtepMac } from '../fabric/vxlan/tunnel.ts';
import { apiTables, type ReflectedTable } from '../informers/api-tables.ts';
import { HttpApiClient } from '../informers/http-client.ts';
import { loadKubeconfig } from '../informers/kubeconfig.ts';
import { openKernel } from '../kernel/kernel.ts';
import type { Kernel, KernelEvent } from '../kernel/types.ts';
import type { Attachment } from '../state/attachment.ts';
import { mapTable } from '../state/derived.ts';
import type { FabricNode, FabricPlan, FabricProblem } from '../state/fabric-plan.ts';
import type { ObjectStatus } from '../state/operations.ts';
import type { Change } from '../state/table.ts';
import { SqliteAttachmentStore } from '../store/attachment-store.ts';
import { Attachments } from './attachments.ts';
import { type HealthServer, serveHealth } from './http.ts';
import { Loop } from './loop.ts';
import { createMetrics, type Metrics } from './metrics.ts';
import { type NodeMemory, recallNode, rememberNode } from './node-memory.ts';
import { NodeNetwork } from './node-network.ts';
import { NodeRegistration } from './node-registration.ts';
import { strays } from './strays.ts';
import { findUnderlay, type UnderlayView } from './underlay.ts';

const PLUGIN_BINARY = path.join(import.meta.dirname, '../../build/weft-cni');

/** How often the main thread looks whether it has garbage worth collecting, and how much that is. */
const TIDY_MS = 5_000;
const TIDY_BYTES = 2 << 20;

/** A Node object as the agent keeps it. */
interface NodeRow {
  key: string;
  uid: string;
  fabric: FabricNode;
  problems: FabricProblem[];
}

export interface AgentOptions {
  config: AgentConfig;
  logger: Logger;
  clock?: Clock;
}

export class Agent implements AsyncDisposable {
  readonly #config: AgentConfig;
  readonly #log: Logger;
  readonly #clock: Clock;
  readonly #metrics: Metrics;
  readonly #closing = new AsyncDisposableStack();
  readonly #memoryFile: string;
  #memory: NodeMemory | undefined;
  #kernel!: Kernel;
  #client!: HttpApiClient;
  #events!: EventRecorder;
  #attachments!: Attachments;
  #registration!: NodeRegistration;
  #network!: NodeNetwork;
  #nodes!: ReflectedTable<NodeRow>;
  #underlay: UnderlayView | undefined;
  #status!: Loop;
  #installed = false;

  private constructor({ config, logger, clock = systemClock }: AgentOptions) {
    this.#config = config;
    this.#log = logger;
    this.#clock = clock;
    this.#metrics = createMetrics(config.nodeName);
    this.#memoryFile = path.join(config.stateDir, 'node.json');
  }

  /** Resolves when CNI is answered; the rest follows as the API allows. @throws WEFT_* of whatever cannot be had */
  static async start(options: AgentOptions): Promise<Agent> {
    const agent = new Agent(options);
    try {
      await agent.#start();
      return agent;
    } catch (error) {
      await agent.close();
      throw error;
    }
  }

  get metrics(): Metrics {
    return this.#metrics;
  }

  async #start(): Promise<void> {
    const config = this.#config;
    const [kernel, access] = await Promise.all([openKernel(), loadKubeconfig(config.kubeconfig)]);
    this.#kernel = this.#closing.use(kernel);
    mkdirSync(config.stateDir, { recursive: true, mode: 0o700 });
    this.#client = new HttpApiClient(access, { userAgent: `weft-agent/${config.nodeName}` });
    this.#closing.defer(() => this.#client.close());
    this.#events = new EventRecorder({
      client: this.#client,
      component: 'weft-agent',
      host: config.nodeName,
      clock: this.#clock,
      logger: this.#log,
    });
    this.#closing.defer(() => this.#events.close());
    if (config.metrics.port !== 0) await this.#serveHealth();

    this.#memory = recallNode(this.#memoryFile);
    await this.#startAttachments();
    await this.#serveCni();
    this.#followNodes();
    await this.#startNetwork();
    this.#startStatus();
    this.#keepTidy();
  }

  /** V8 keeps what a burst of ADDs left for as long as nothing presses; an agent that then rests for days gives it back. */
  #keepTidy(): void {
    const { gc } = globalThis as { gc?: () => void };
    if (!gc) return;
    let before = 0;
    const timer = setInterval(() => {
      const { heapUsed } = process.memoryUsage();
      if (heapUsed - before < TIDY_BYTES) return;
      gc();
      before = process.memoryUsage().heapUsed;
    }, TIDY_MS);
    timer.unref();
    this.#closing.defer(() => clearInterval(timer));
  }

  // --- attachments and CNI: of this node alone ---

  async #startAttachments(): Promise<void> {
    const { stateDir, cni } = this.#config;
    const store = new SqliteAttachmentStore(path.join(stateDir, 'attachments.db'));
    this.#closing.defer(() => store.close());
    this.#attachments = new Attachments({
      kernel: this.#kernel,
      store,
      spool: new Spool(cni.spoolDir),
      clock: this.#clock,
      logger: this.#log,
      cooldownSeconds: cni.cooldownSeconds,
      marker: attachedMarker(cni.socket),
      onDrift: ({ attachment, differences, by }) => {
        const who = by ? ` by ${by.name ?? 'a process'} (pid ${by.pid})` : '';
        const what = differences.map(({ text }) => text).join('; ');
        for (const { key } of differences) this.#metrics.drift.inc({ kind: key.split(' ', 1)[0]! });
        this.#tell('Warning', 'AttachmentRepaired', `${nameOf(attachment)}: ${what}${who}; put right`);
      },
    });
    this.#closing.use(this.#attachments);
    await this.#attachments.start();
    const counted = (): void => this.#metrics.attachments.set(this.#attachments.table.size);
    this.#closing.use(this.#attachments.table.subscribe(counted, { initial: true }));
    const onBroken = (changes: Change<ObjectStatus>[]): void => this.#onBroken(changes);
    this.#closing.use(this.#attachments.broken.subscribe(onBroken, { initial: true }));
    // Without the filter, what a pod sends would go unchecked: then ADDs wait for the network.
    if (this.#memory && (await this.#kernel.nftList('', 'table inet weft'))) this.#configure(this.#memory);
  }

  /** Told once, not with every attempt; the gauge says for how long. */
  #onBroken(changes: Change<ObjectStatus>[]): void {
    this.#metrics.broken.set(this.#attachments.broken.size);
    for (const { key, old, new: now } of changes) {
      const attachment = this.#attachments.table.get(key);
      if (old || !now || !attachment) continue;
      const why = now.error ? `${now.error.message} (${now.error.code})` : 'it differs from its plan';
      this.#tell('Warning', 'AttachmentBroken', `${nameOf(attachment)} cannot be put right: ${why}`);
    }
  }

  #configure({ podCIDRs, podMtu }: NodeMemory): void {
    this.#attachments.configure({ podCIDRs, clusterCIDRs: this.#config.clusterCIDRs, mtu: podMtu });
  }

  async #serveCni(): Promise<void> {
    const server = new CniServer({
      path: this.#config.cni.socket,
      backend: this.#attachments,
      logger: this.#log,
      onAnswer: ({ command, code, seconds }) =>
        this.#metrics.cniSeconds.observe(seconds, { command, code: String(code) }),
    });
    this.#closing.use(server);
    await server.listen();
  }

  // --- the cluster ---

  #followNodes(): void {
    const tables = apiTables({
      client: this.#client,
      clock: this.#clock,
      logger: this.#log,
      onReconnect: () => this.#status?.retryNow(),
    });
    this.#nodes = tables.open<Node, NodeRow>({
      resource: NODES,
      map: (node) => {
        const { node: fabric, problems } = fabricNodeOf(node);
        return { key: fabric.name, uid: node.metadata.uid ?? '', fabric, problems };
      },
    });
    this.#closing.defer(() => this.#nodes.close());
  }

  async #startNetwork(): Promise<void> {
    const fabricNodes = this.#closing.use(mapTable(this.#nodes.table, 'fabric-nodes', (row) => row.fabric));
    this.#network = new NodeNetwork({
      kernel: this.#kernel,
      config: this.#config,
      nodes: fabricNodes,
      clock: this.#clock,
      logger: this.#log,
      metrics: this.#metrics,
      onDrift: ({ message }) => this.#tell('Warning', 'NetworkRepaired', message),
      onProblem: ({ reason, message }) => this.#tell('Warning', reason, message),
      onFault: (reason, message) => this.#tell('Warning', reason, message),
      onUnderlay: (view) => {
        const moved = this.#underlay && this.#underlay.nodeIPs.join() !== view.nodeIPs.join();
        this.#underlay = view;
        if (moved) this.#reconnect();
        this.#status?.trigger();
      },
      onPlan: (plan) => this.#onPlan(plan),
    });
    this.#closing.defer(() => this.#network.close());
    this.#metrics.followCounters(() => this.#network.counters());
    const onEvents = (events: KernelEvent[]): void => {
      this.#network.handleEvents(events);
      this.#attachments.handleKernelEvents(events);
    };
    const what = { kinds: LINK_KINDS, nft: true, foreignOnly: true };
    const watch = await this.#kernel.watch('', what, onEvents);
    this.#closing.defer(() => watch.close());
    this.#nodes.synced.then(
      () => {
        this.#metrics.synced.set(1, { kind: 'nodes' });
        this.#network.start();
      },
      () => {}, // closed before
    );
  }

  /** From our addresses as they are now, and without waiting out what failed from those before. */
  #reconnect(): void {
    this.#client.reconnect();
    this.#nodes.reflector.retryNow();
    this.#status?.retryNow();
  }

  #onPlan(plan: FabricPlan): void {
    const podCIDRs = this.#nodes.table.get(this.#config.nodeName)?.fabric.podCIDRs ?? [];
    if (podCIDRs.length > 0) {
      const memory = { podCIDRs, podMtu: plan.podMtu };
      this.#configure(memory);
      if (JSON.stringify(memory) !== JSON.stringify(this.#memory)) {
        rememberNode(this.#memoryFile, memory);
        this.#memory = memory;
        const cutOff = strays(this.#attachments.table.values(), podCIDRs);
        if (cutOff) this.#tell('Warning', 'PodCIDRChanged', cutOff);
      }
    }
    this.#status.trigger();
  }

  // --- this node's own objects ---

  #startStatus(): void {
    this.#status = new Loop({
      clock: this.#clock,
      periodMs: 60_000,
      retryMs: [50, 10_000],
      pass: () => this.#writeStatus(),
      onError: (error, attempt) => {
        if (attempt > 2)
          this.#log.warn({ err: messageOf(error), attempt }, 'cannot write this node to the API yet');
      },
    });
    this.#closing.defer(() => this.#status.close());
    this.#closing.use(this.#nodes.table.subscribe((changes) => this.#onNodes(changes)));
    this.#status.start();
    this.#status.trigger();
  }

  /** Somebody deleted our Node, or emptied its status: without it, no other node has a route to our pods. */
  #onNodes(changes: Change<NodeRow>[]): void {
    for (const { key, old, new: now } of changes) {
      if (key !== this.#config.nodeName || !old) continue;
      const lost = old.fabric.nodeIPs.some((ip) => !now?.fabric.nodeIPs.includes(ip));
      if (!now || now.uid !== old.uid || lost) this.#status.trigger();
    }
  }

  /** What a Node made anew must keep, unless another node has it by now. */
  #podCIDRsInUse(): Cidr[] {
    if (!this.#memory || this.#attachments.table.size === 0) return [];
    const { podCIDRs } = this.#memory;
    for (const { key, fabric } of this.#nodes.table.values()) {
      if (key === this.#config.nodeName) continue;
      if (fabric.podCIDRs.some((other) => podCIDRs.some((own) => cidrOverlaps(own, other)))) return [];
    }
    return podCIDRs;
  }

  async #writeStatus(): Promise<void> {
    this.#underlay ??= findUnderlay(
      await this.#kernel.dump('', ['link', 'address', 'route'], { table: 254 }),
      this.#config.nodeIPs,
    );
    const facts = {
      name: this.#config.nodeName,
      addresses: this.#underlay.nodeIPs,
      annotations: { [VTEP_MAC_ANNOTATION]: vtepMac(this.#config.nodeName) },
      podCIDRs: this.#podCIDRsInUse(),
    };
    if (!this.#registration) {
      this.#registration = new NodeRegistration({
        client: this.#client,
        clock: this.#clock,
        logger: this.#log,
        facts,
        ownsNode: this.#config.registerNode,
      });
      this.#closing.defer(() => this.#registration.close());
    }
    await this.#registration.update(facts);
    this.#registration.startHeartbeat();
    const problems = this.notReady;
    if (problems.length === 0) this.#install();
    await this.#registration.setReady(
      problems.length === 0,
      problems.length === 0 ? 'WeftReady' : 'WeftNotReady',
      problems.length === 0 ? 'the pod network of this node works' : problems.join('; '),
    );
    // Whichever of the two reaches the API first wakes the other. Only at the end: a pass that may fail yet could be
    // woken in turn, in a circle.
    if (!this.#nodes.connected) this.#nodes.reflector.retryNow();
  }

  /** The runtime looks for a configuration: it gets one when pods can be attached, and not before. */
  #install(): void {
    if (this.#installed) return;
    const { binDir, confDir, socket, spoolDir } = this.#config.cni;
    if (binDir) installPlugin(PLUGIN_BINARY, binDir);
    if (confDir) installConflist(confDir, { socket, spoolDir });
    this.#installed = true;
  }

  /** Empty once pods can be attached and reached; else why not. */
  get notReady(): string[] {
    const problems = this.#network?.notReady ?? ['starting'];
    if (problems.length === 0 && !this.#attachments.ipam) problems.push('this node has no pod CIDR yet');
    return problems;
  }

  async #serveHealth(): Promise<void> {
    const { address, port } = this.#config.metrics;
    const health = { live: () => [], ready: () => this.notReady };
    const server: HealthServer = await serveHealth(address, port, health, this.#metrics.registry);
    this.#closing.use(server);
    this.#log.debug({ port: server.port }, 'health and metrics');
  }

  #tell(type: 'Normal' | 'Warning', reason: string, message: string): void {
    this.#log[type === 'Warning' ? 'warn' : 'info']({ reason }, message);
    const name = this.#config.nodeName;
    const uid = this.#nodes?.table.get(name)?.uid;
    const about: ObjectReference = { apiVersion: 'v1', kind: 'Node', name, ...(uid && { uid }) };
    this.#events.event(about, type, reason, message);
  }

  /** Pods stay attached and the kernel goes on forwarding. */
  async close(): Promise<void> {
    await this.#closing.disposeAsync();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

function nameOf({ pod, id }: Attachment): string {
  return pod ? `pod ${pod.namespace}/${pod.name}` : id;
}
