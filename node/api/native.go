package api

import "context"

type nativeConn struct{}

func (c *nativeConn) drain(ctx context.Context) {}
