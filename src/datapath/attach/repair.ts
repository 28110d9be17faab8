/** Observing attachments in the kernel, and bringing them back to their plans: only what differs is touched. */
import { isWeftError } from '../../base/errors.ts';
import { type Link, POD_LINK_GROUP } from '../../base/net-objects.ts';
import type { Kernel } from '../../kernel/types.ts';
import type { AttachPlan } from '../../state/attachment.ts';
import { attach, errorOf, hostOps, podOps } from './attach.ts';
import {
  type Difference,
  hostDifferences,
  Observed,
  podDifferences,
  sysctlDifferences,
} from './differences.ts';
import { DYING_LINK_GROUP } from './reaper.ts';

/** The node's side of all attachments: a few dumps, whatever their number. */
export async function observeHost(kernel: Kernel): Promise<Observed> {
  return new Observed(await kernel.dump('', ['link', 'route', 'neighbour']));
}

/**
 * Which sysctls of the node's side differ. One read each, 2 or 3 a family: for the audit, the kernel tells of no single one.
 * What cannot be read differs from nothing: its link is gone, and that is told of by the link.
 */
export async function verifySysctls(kernel: Kernel, { host }: AttachPlan): Promise<Difference[]> {
  const read = await Promise.allSettled(host.sysctls.map(({ path }) => kernel.sysctlRead('', path)));
  const found = read.flatMap((result, i) =>
    result.status === 'fulfilled' ? [[host.sysctls[i]!.path, result.value.trim()] as const] : [],
  );
  return sysctlDifferences(host.sysctls, new Map(found));
}

/** @throws WEFT_NETNS_NOT_FOUND */
async function observePod(kernel: Kernel, plan: AttachPlan): Promise<Observed> {
  return new Observed(await kernel.dump(plan.attachment.netns, ['link', 'address', 'route', 'neighbour']));
}

/** What differs on both sides. @throws WEFT_NETNS_NOT_FOUND */
export async function verify(kernel: Kernel, plan: AttachPlan): Promise<Difference[]> {
  const [host, pod] = await Promise.all([observeHost(kernel), observePod(kernel, plan)]);
  return [...hostDifferences(plan, host), ...podDifferences(plan, pod)];
}

/**
 * Make the kernel as the plan says again, given what differs. A veth that is gone, or is none, is made anew; anything
 * else is set in place, so that established connections go on.
 *
 * @throws WEFT_NETNS_NOT_FOUND when the sandbox is gone, and what {@link attach} throws
 */
export async function repair(kernel: Kernel, plan: AttachPlan, differences: Difference[]): Promise<void> {
  if (differences.length === 0) return;
  const gone = `link ${plan.link.name}`;
  const far = `link ${plan.attachment.ifname}`;
  const anew = differences.some(
    ({ side, key, text }) =>
      key === (side === 'host' ? gone : far) && (text.endsWith(' is missing') || text.includes(' has type ')),
  );
  if (anew) {
    await attach(kernel, plan);
    return;
  }
  const sides = new Set(differences.map((difference) => difference.side));
  const { failures } = await kernel.run([
    ...(sides.has('host') ? [{ ns: '', ops: hostOps(plan), continueOnError: true }] : []),
    ...(sides.has('pod') ? [{ ns: plan.attachment.netns, ops: podOps(plan), continueOnError: true }] : []),
  ]);
  const failure = failures.find((f) => !f.gone);
  if (failure) throw errorOf(failure);
}

/** Links in this namespace that bear the mark of pods: group and alias. */
export function ownedLinks(host: Observed): Link[] {
  return [...host.links()].filter(
    ({ group, alias }) =>
      (group === POD_LINK_GROUP || group === DYING_LINK_GROUP) && alias?.startsWith('weft:') === true,
  );
}

/** Names of links of pods that no attachment has, and of those on their way out. */
export function unownedLinks(host: Observed, owned: ReadonlySet<string>): string[] {
  return ownedLinks(host)
    .filter(({ name, group }) => group === DYING_LINK_GROUP || !owned.has(name))
    .map(({ name }) => name);
}

/** Whether the error says that the sandbox is not there any more. */
export function isSandboxGone(error: unknown): boolean {
  return isWeftError(error, 'WEFT_NETNS_NOT_FOUND');
}
