/**
 * Attach and detach, each in one message to the kernel worker.
 *
 * Order of attach: the node's side comes up with its routes as the last thing (they are the anti-spoofing: before them, what
 * the pod sends is dropped); the sandbox's side comes up when all else is ready, so the first packet finds its way. What
 * connection tracking remembers of an earlier owner of the addresses must be gone before (see {@link Reaper.purged}).
 */
import { WeftError } from '../../base/errors.ts';
import type { Kernel, Op, OpFailure, RunResult, Step } from '../../kernel/types.ts';
import type { Attachment, AttachPlan, Sysctl } from '../../state/attachment.ts';
import { DYING_LINK_GROUP } from './reaper.ts';

const EEXIST = 17;

const write = ({ path, value }: Sysctl): Op => ({ op: 'sysctl.write', path, value });

/** The node's side of an existing link, made as the plan says. Idempotent. */
export function hostOps(plan: AttachPlan): Op[] {
  const { name, mac, mtu, group, alias, up } = plan.link;
  const set = { name, mac, mtu, group, alias, up } as Extract<Op, { op: 'link.set' }>['link'];
  return [
    ...plan.host.sysctls.map(write),
    { op: 'link.set', link: set },
    ...plan.host.neighbours.map((neighbour): Op => ({ op: 'neighbour.replace', neighbour })),
    ...plan.host.routes.map((route): Op => ({ op: 'route.replace', route })),
  ];
}

/** The sandbox's side of an existing link. Idempotent. */
export function podOps(plan: AttachPlan): Op[] {
  const { name, mac, mtu } = plan.link.peer!;
  const set = { name, mac, mtu, up: true } as Extract<Op, { op: 'link.set' }>['link'];
  return [
    ...plan.pod.sysctls.map(write),
    { op: 'link.set', link: { name: 'lo', up: true } },
    ...plan.pod.addresses.map((address): Op => ({ op: 'address.replace', address })),
    { op: 'link.set', link: set },
    ...plan.pod.neighbours.map((neighbour): Op => ({ op: 'neighbour.replace', neighbour })),
    ...plan.pod.routes.map((route): Op => ({ op: 'route.replace', route })),
  ];
}

/** The whole of an attachment that is not in the kernel at all. */
export function attachSteps(plan: AttachPlan): Step[] {
  return [
    {
      ns: '',
      ops: [
        { op: 'link.create', link: { ...plan.link, up: false } },
        ...plan.host.sysctls.map(write),
        { op: 'link.set', link: { name: plan.link.name, up: true } },
        ...plan.host.neighbours.map((neighbour): Op => ({ op: 'neighbour.replace', neighbour })),
        ...plan.host.routes.map((route): Op => ({ op: 'route.replace', route })),
      ],
    },
    {
      ns: plan.attachment.netns,
      ops: [
        ...plan.pod.sysctls.map(write),
        { op: 'link.set', link: { name: 'lo', up: true } },
        ...plan.pod.addresses.map((address): Op => ({ op: 'address.replace', address })),
        { op: 'link.set', link: { name: plan.attachment.ifname, up: true } },
        ...plan.pod.neighbours.map((neighbour): Op => ({ op: 'neighbour.replace', neighbour })),
        ...plan.pod.routes.map((route): Op => ({ op: 'route.replace', route })),
      ],
    },
  ];
}

/**
 * Make the attachment, all of it or nothing. A link of the same name is a leftover of ours and is replaced.
 *
 * @throws WEFT_ATTACH_CONFLICT when the sandbox has such an interface already, WEFT_NETNS_NOT_FOUND,
 * WEFT_NETLINK_REFUSED and what else {@link Kernel.must} throws
 */
export async function attach(kernel: Kernel, plan: AttachPlan): Promise<void> {
  const steps = attachSteps(plan);
  let failure = firstFailure(await kernel.run(steps));
  if (failure && exists(steps, failure)) {
    // Ours from before: a veth that a crash left, one that was detached and not yet reaped, or one that was renamed.
    await removeLinks(kernel, [plan.link.name, ...(await renamedLinks(kernel, plan))]);
    failure = firstFailure(await kernel.run(steps));
    if (failure && exists(steps, failure)) {
      const { ifname, netns } = plan.attachment;
      throw new WeftError(
        'WEFT_ATTACH_CONFLICT',
        `the sandbox ${netns} has an interface ${ifname} already, and it is not one of Weft`,
        { details: { ifname, netns } },
      );
    }
  }
  if (!failure) return;
  await removeLinks(kernel, [plan.link.name]);
  throw errorOf(failure);
}

/**
 * End the attachments' traffic at once: link down, and the kernel takes its routes and neighbours along. The rest is for the
 * {@link Reaper}. Idempotent; never looks into the sandbox, which may be gone.
 */
export async function detach(kernel: Kernel, attachments: readonly Attachment[]): Promise<void> {
  await closeLinks(
    kernel,
    attachments.map((attachment) => attachment.hostIfname),
  );
}

/** {@link detach} for links of which only the name is known. */
export async function closeLinks(kernel: Kernel, names: readonly string[]): Promise<void> {
  if (names.length === 0) return;
  const { failures } = await kernel.run([{ ns: '', ops: names.map(closeOp), continueOnError: true }]);
  const failure = failures.find((f) => f.errnoName !== 'ENODEV');
  if (failure) throw errorOf(failure);
}

function closeOp(name: string): Op {
  return { op: 'link.set', link: { name, up: false, group: DYING_LINK_GROUP } };
}

/** Delete links now, and all that are dying. Blocks the kernel worker for tens of milliseconds. */
async function removeLinks(kernel: Kernel, names: readonly string[]): Promise<void> {
  await closeLinks(kernel, names);
  const { failures } = await kernel.run([
    { ns: '', ops: [{ op: 'link.deleteGroup', group: DYING_LINK_GROUP }], continueOnError: true },
  ]);
  const failure = failures.find((f) => !f.gone);
  if (failure) throw errorOf(failure);
}

/** Host sides of this attachment under another name: a link keeps its alias when somebody renames it. */
async function renamedLinks(kernel: Kernel, { link }: AttachPlan): Promise<string[]> {
  // An alias that had to be cut may be that of two attachments.
  if (link.alias === undefined || Buffer.byteLength(link.alias) >= 255) return [];
  return (await kernel.dump('', ['link'])).flatMap((found) =>
    found.kind === 'link' && found.alias === link.alias && found.name !== link.name ? found.name : [],
  );
}

function firstFailure(result: RunResult): OpFailure | undefined {
  return result.failures.find((failure) => !failure.gone);
}

function exists(steps: Step[], failure: OpFailure): boolean {
  return failure.errno === EEXIST && steps[failure.step]?.ops[failure.op]?.op === 'link.create';
}

export function errorOf(failure: OpFailure): WeftError {
  const { code = 'WEFT_NETLINK_REFUSED', message, errno, errnoName } = failure;
  return new WeftError(code, message, { details: { errno, errnoName } });
}
