/**
 * How large a pod's packet may be.
 *
 * Pods get the lowest MTU that can occur on the way to any other pod, because an interface has one MTU and a packet that
 * fits everywhere needs no discovery. A path that is wider is not throttled for the node itself: direct routes go over the
 * underlay device with its own MTU, only the tunnel device has the smaller one. A pod attached when the MTU was larger keeps
 * working: its node answers what no longer fits with ICMP (RFC 1191 §4, RFC 4443 §3.2) before anything is encapsulated.
 */
import type { FabricProblem } from '../state/fabric-plan.ts';
import { type FabricContext, podCidrs, type TunnelFamily, underlayOf } from './context.ts';
import { tunnelMtu } from './vxlan/tunnel.ts';

/** Without a known underlay: Ethernet's. */
const DEFAULT_MTU = 1500;
/** RFC 8200 §5: the kernel turns IPv6 off on an interface with less. */
const IPV6_MINIMUM = 1280;

export interface Mtus {
  /** Bytes. */
  pod: number;
  device(outer: TunnelFamily): number;
  problems: FabricProblem[];
}

/** `tunnels`: the tunnel devices in use. A configured MTU is a ceiling, for underlays that are narrower than they look. */
export function computeMtus(context: FabricContext, tunnels: Iterable<TunnelFamily>): Mtus {
  const { self, config } = context;
  const wanted = config.fabric.mtu;
  const underlays = ([4, 6] as const).flatMap((family) => underlayOf(context, family)?.mtu ?? []);
  const through = [...tunnels].flatMap((outer) => tunnelMtu(context, outer) ?? []);
  const capacity = underlays.length === 0 ? DEFAULT_MTU : Math.min(...underlays, ...through);
  const pod = wanted === 0 ? capacity : Math.min(wanted, capacity);
  const problems: FabricProblem[] = [];
  if (wanted > capacity) {
    problems.push({
      node: self.name,
      reason: 'MtuTooLarge',
      message: `fabric.mtu ${wanted} does not fit the underlay of node ${self.name}, which carries ${capacity} bytes of a pod's packet; ${capacity} is used`,
    });
  }
  if (pod < IPV6_MINIMUM && podCidrs(self, 6).length > 0) {
    problems.push({
      node: self.name,
      reason: 'MtuTooSmall',
      message: `the underlay of node ${self.name} carries ${pod} bytes of a pod's packet, but IPv6 needs ${IPV6_MINIMUM}`,
    });
  }
  return {
    pod,
    device: (outer) => {
      const most = tunnelMtu(context, outer) ?? DEFAULT_MTU;
      return wanted === 0 ? most : Math.min(wanted, most);
    },
    problems,
  };
}
