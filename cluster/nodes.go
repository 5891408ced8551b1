package cluster

import (
	"sync"

	"berth/workspace"
)

// registry holds the agents that can be reached from here, by node id.
type registry struct {
	mu       sync.Mutex
	services map[string]workspace.NodeService
}

// SetNodeService says how a node's agent is reached, nil that it can't be any
// more.
func (c *Cluster) SetNodeService(node string, s workspace.NodeService) {
	c.nodes.mu.Lock()
	defer c.nodes.mu.Unlock()
	if c.nodes.services == nil {
		c.nodes.services = map[string]workspace.NodeService{}
	}
	if s == nil {
		delete(c.nodes.services, node)
		return
	}
	c.nodes.services[node] = s
}

// Node gives a node's agent: CodeNotFound when the cluster has no such node,
// CodeUnavailable when its agent isn't connected.
func (c *Cluster) Node(id string) (workspace.NodeService, error) {
	c.nodes.mu.Lock()
	s := c.nodes.services[id]
	c.nodes.mu.Unlock()
	if s != nil {
		return s, nil
	}
	node := c.View().Node(id)
	if node == nil {
		return nil, workspace.Errorf(workspace.CodeNotFound, "there is no node %q: berth node ls lists them", id)
	}
	return nil, workspace.Errorf(workspace.CodeUnavailable, "node %s isn't connected: is berthd running there?", node.Name)
}
