package api

import (
	"context"

	"berth/workspace"
)

// Principal is who asks, as the server that took the connection found out.
type Principal struct {
	User string
	Role workspace.Role // RoleClusterAdmin, or RoleMember for one who is only what memberships say
}

type principalKey struct{}

// WithPrincipal says who asks in all requests of a context; for the control
// socket it is set once per connection.
func WithPrincipal(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

type refusalKey struct{}

// WithRefusal says that whoever asks in requests of a context is known and may
// not: every request is answered with this error.
func WithRefusal(ctx context.Context, why *workspace.Error) context.Context {
	return context.WithValue(ctx, refusalKey{}, why)
}

func principalOf(ctx context.Context) (Principal, error) {
	if why, ok := ctx.Value(refusalKey{}).(*workspace.Error); ok {
		return Principal{}, why
	}
	p, ok := ctx.Value(principalKey{}).(Principal)
	if !ok || p.Role == "" {
		return p, workspace.Errorf(workspace.CodeUnauthorized, "who asks isn't known: use the control socket")
	}
	return p, nil
}
